# CUDA, where asked for (preset cuda-release): the toolkit (12.0 or later), NCCL and cuDNN where they are there, and the architectures that the toolkit can
# still compile for. Nothing links the driver's library: a build starts on a machine without one.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(nvcc nvcc PATHS /usr/local/cuda/bin)
  if(nvcc)
    set(CMAKE_CUDA_COMPILER ${nvcc})
  endif()
endif()
find_package(CUDAToolkit 12.0 REQUIRED)
if(NOT CMAKE_CUDA_ARCHITECTURES)
  if(CUDAToolkit_VERSION VERSION_LESS 13)
    set(CMAKE_CUDA_ARCHITECTURES 70 80 90)  # V100, A100, H100 and H200
  else()
    set(CMAKE_CUDA_ARCHITECTURES 80 90)  # 13 no longer compiles for Volta
  endif()
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # nvcc knows it; CMake 3.25 does not know that
endif()
# Without it, ranks on GPUs talk through the memory of their hosts.
list(APPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})
find_package(NCCL 2.13)
# Without it, attention is computed by products alone.
find_package(CUDNN 9.10.2)
