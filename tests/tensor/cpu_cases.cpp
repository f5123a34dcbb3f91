// The CPU backend in every type, on every instruction set that this processor has.
#include "tests/tensor/verb_case.h"

namespace smlp::test {

std::vector<VerbCase> verb_cases() {
  std::vector<VerbCase> cases;
  for (const char* isa : {"baseline", "avx2", "avx512"}) {
    try {
      make_cpu_backend({.threads = 1, .isa = isa});
    } catch (const Error&) {
      continue;  // this processor has it not
    }
    for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
      cases.push_back({type, isa, [isa] { return make_cpu_backend({.threads = 1, .isa = isa}); }, DType::i32});
    }
  }
  return cases;
}

}  // namespace smlp::test
