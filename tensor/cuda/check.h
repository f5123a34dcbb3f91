// Errors of the CUDA runtime as sentences.
#pragma once

#include <cuda_runtime.h>

namespace smlp::cuda {

void check(cudaError_t status,
           const char* what);  // throws Error(fault): "cuda: <what>: <the runtime's words>"

// Is work on the stream being recorded (graph.cpp)? What fails then need not fail otherwise.
bool is_recorded(cudaStream_t stream);
// Throws Error(fault) where work on the stream is being recorded: a library that chooses how to do something
// then may be unable to, and its answer would be remembered.
void expect_not_recorded(cudaStream_t stream, const char* what);

}  // namespace smlp::cuda
