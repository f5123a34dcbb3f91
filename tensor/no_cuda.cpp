// A build without CUDA: there are no GPUs.
#include "core/error.h"
#include "tensor/backend.h"

namespace smlp {

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions&) {
  throw Error(ExitCode::unavailable, "this smlp was built without CUDA and computes on CPUs alone; build it with the preset "
                                     "cuda-release (docs/cuda.md), or set cluster.device = \"cpu\"");
}

int cuda_devices() { return 0; }
int cuda_capability(int) { return 0; }

}  // namespace smlp
