#include "tests/cuda_emulation/small_model.h"

namespace smlp::test {

std::unique_ptr<Backend> gpu() { return make_cuda_backend(); }
bool nccl_takes_all_ranks() { return true; }

}  // namespace smlp::test
