// Errors of the CUDA runtime as sentences.
#pragma once

#include <cuda_runtime.h>

namespace smlp::cuda {

void check(cudaError_t status,
           const char* what);  // throws Error(fault): "cuda: <what>: <the runtime's words>"

// Throws Error(unavailable): the memory ran out while this was done, with what helps.
[[noreturn]] void refuse_for_want_of_memory(const char* what, const char* words);

// Is work on the stream being recorded (graph.cpp)? What fails then need not fail otherwise.
bool is_recorded(cudaStream_t stream);
// Throws Error(fault) where work on the stream is being recorded: a library that chooses how to do something
// then may be unable to, and its answer would be remembered.
void expect_not_recorded(cudaStream_t stream, const char* what);

}  // namespace smlp::cuda
