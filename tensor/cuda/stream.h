// The stream of a CUDA backend, for what is ordered behind its work or before it.
#pragma once

#include <cuda_runtime.h>

#include "tensor/backend.h"

namespace smlp::cuda {

cudaStream_t stream_of(Backend& backend);  // throws Error(fault) for a backend of another kind

}  // namespace smlp::cuda
