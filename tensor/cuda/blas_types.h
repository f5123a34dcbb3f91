// How cuBLAS and cuBLASLt call the types of values and of sums.
#pragma once

#include <cublas_api.h>

#include "tensor/tensor_view.h"

namespace smlp::cuda {

inline cudaDataType_t data_type(DType type) {
  return type == DType::f32 ? CUDA_R_32F : type == DType::bf16 ? CUDA_R_16BF : CUDA_R_16F;
}

inline cublasComputeType_t sum_type(DType type, bool tf32) {
  return type == DType::f32 && tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

}  // namespace smlp::cuda
