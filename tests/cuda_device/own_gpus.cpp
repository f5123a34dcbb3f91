#include "core/features.h"
#include "tests/cuda_emulation/small_model.h"

namespace smlp::test {

std::unique_ptr<Backend> gpu() { return make_cuda_backend({.device = world().rank() % cuda_devices()}); }
bool nccl_takes_all_ranks() { return built_with_nccl() && world().size() <= cuda_devices(); }

}  // namespace smlp::test
