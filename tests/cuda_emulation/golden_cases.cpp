#include "tests/golden/golden_case.h"

namespace smlp::test {

std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    cases.push_back({type, "cuda", [] { return make_cuda_backend(); }});
  }
  return cases;
}

}  // namespace smlp::test
