#include <fmt/format.h>

#include <string_view>

#include "core/error.h"
#include "tensor/cpu/kernels.h"

namespace smlp::cpu {

int place_of(DType type) {
  switch (type) {
    case DType::f64: return 0;
    case DType::f32: return 1;
    case DType::bf16: return 2;
    case DType::f16: return 3;
    default: return -1;
  }
}

const KernelSet& kernels_named(const char* isa) {
  const bool has_avx512 = __builtin_cpu_supports("x86-64-v4"), has_avx2 = __builtin_cpu_supports("x86-64-v3");
  const std::string_view wanted = isa;
  if (wanted.empty()) return has_avx512 ? kernels_avx512() : has_avx2 ? kernels_avx2() : kernels_baseline();
  if (wanted == "avx512" && has_avx512) return kernels_avx512();
  if (wanted == "avx2" && has_avx2) return kernels_avx2();
  if (wanted == "baseline") return kernels_baseline();
  throw Error(ExitCode::unavailable,
              fmt::format("this processor has no '{}' instructions (known: baseline, avx2, avx512)", wanted));
}

}  // namespace smlp::cpu
