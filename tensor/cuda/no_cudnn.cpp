// A build without cuDNN: attention is computed by products alone.
#include "core/error.h"
#include "tensor/cuda/flash_attention.h"

namespace smlp::cuda {

std::unique_ptr<FlashLibrary> make_flash_library(cudaStream_t) {
  throw Error(ExitCode::unavailable, "this smlp was built without it (docs/cuda.md)");
}

}  // namespace smlp::cuda
