// The CUDA backend in every type, with threads and blocks in orders that change from launch to launch.
#include "tests/tensor/verb_case.h"

namespace smlp::test {

std::vector<VerbCase> verb_cases() {
  std::vector<VerbCase> cases;
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    cases.push_back({type, "cuda", [] { return make_cuda_backend(); }, DType::f64});
  }
  return cases;
}

}  // namespace smlp::test
