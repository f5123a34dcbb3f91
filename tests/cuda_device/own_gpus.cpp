#include "core/features.h"
#include "tests/cuda_emulation/small_model.h"

namespace smlp::test {

std::unique_ptr<Backend> gpu() { return make_cuda_backend({.device = world().rank() % cuda_devices()}); }
// A rank alone calls nothing of it: a test that passes then would say what it has not seen.
bool nccl_takes_all_ranks() { return built_with_nccl() && world().size() > 1 && world().size() <= cuda_devices(); }

}  // namespace smlp::test
