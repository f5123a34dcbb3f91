#include "tensor/backend.h"

namespace smlp {

std::string cpu_isa() {
  std::string name = __builtin_cpu_supports("x86-64-v4")   ? "avx512"
                     : __builtin_cpu_supports("x86-64-v3") ? "avx2"
                                                           : "baseline";
  if (__builtin_cpu_supports("avx512bf16")) name += "+bf16";
  return name;
}

}  // namespace smlp
