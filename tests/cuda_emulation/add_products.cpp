#include "tests/cuda_emulation/host_product.h"

namespace smlp::emulation {

void add_products(const float* a, const float* b, float* sums, std::int64_t m, std::int64_t n, std::int64_t first,
                  std::int64_t last) {
  for (std::int64_t j = 0; j < n; ++j) {
    for (std::int64_t k = first; k < last; ++k) {
      const float factor = b[k * n + j];
      for (std::int64_t i = 0; i < m; ++i) sums[j * m + i] += a[k * m + i] * factor;
    }
  }
}

}  // namespace smlp::emulation
