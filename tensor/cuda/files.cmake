# What the CUDA backend is made of; flash attention is a library's here and plain loops in tests/cuda_emulation,
# which has its own libraries for products.
set(SMLP_CUDA_KERNELS auction.cu choice.cu columns.cu finish.cu gate.cu groups.cu loss.cu norm.cu places.cu
  plain_product.cu pointwise.cu rows.cu sinkhorn.cu slots.cu softmax.cu sort.cu)
set(SMLP_CUDA_SOURCES cuda_attention.cpp cuda_backend.cpp cuda_matmul.cpp cuda_spatial.cpp cuda_routing.cpp cuda_rows.cpp device.cpp
  device_clock.cpp flash_attention.cpp graph.cpp grouped_products.cpp product_end.cpp product_plan.cpp products.cpp side_downloads.cpp)
