#include "tests/golden/golden_case.h"

namespace smlp::test {

std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    cases.push_back({type, "cpu", [] { return make_cpu_backend(); }});
  }
  return cases;
}

}  // namespace smlp::test
