// Errors of the CUDA runtime as sentences.
#pragma once

#include <cuda_runtime.h>

namespace smlp::cuda {

void check(cudaError_t status,
           const char* what);  // throws Error(fault): "cuda: <what>: <the runtime's words>"

}  // namespace smlp::cuda
