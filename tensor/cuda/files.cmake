# What the CUDA backend is made of; the products are the library's here and plain loops in tests/cuda_emulation.
set(SMLP_CUDA_KERNELS auction.cu choice.cu columns.cu gate.cu loss.cu norm.cu places.cu pointwise.cu rows.cu sinkhorn.cu slots.cu softmax.cu sort.cu)
set(SMLP_CUDA_SOURCES cuda_backend.cpp cuda_products.cpp cuda_routing.cpp cuda_rows.cpp device.cpp device_clock.cpp
  side_downloads.cpp)
