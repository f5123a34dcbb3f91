// What cuDNN says of attention without a GPU: whether it is here, and what it plans for GPUs that are described to it. Of its own
// headers, which may take a minute to compile, nothing is seen from here. Every function may throw Error(unavailable).
#pragma once

#include <cstdint>
#include <string>

#include "tensor/cuda/flash_attention.h"

namespace smlp::cuda {

// Opens the library, which stays open: as the loader finds it, or where it was when this program was built. Where it is in
// neither place or too old the error is a sentence's second half.
void open_cudnn();

struct DescribedGpu {
  int capability;          // 80 for 8.0
  std::string properties;  // in cuDNN's words: the JSON of its front end's DeviceProperties
};

// Compiles the kernels of a call for a GPU that need not be here, by the open library; bytes of workspace that they would take.
std::int64_t planned_workspace(const FlashCall& call, const DescribedGpu& gpu);

}  // namespace smlp::cuda
