#include "worker/machine_limits.h"

#include <algorithm>
#include <limits>

#include "worker/phases.h"

namespace smlp {

double product_rate(Backend& backend, DType type) {
  constexpr std::int64_t n = 1024;
  constexpr int tries = 8;
  const std::int64_t bytes = n * n * size_of(type);
  void* const memory = backend.allocate(3 * bytes);
  const TensorView a(memory, {n, n}, type);
  const TensorView b(a.at(n * n), {n, n}, type), out(a.at(2 * n * n), {n, n}, type);
  backend.fill(a, 0.5);
  backend.fill(b, 0.25);
  double least = std::numeric_limits<double>::max();
  for (int i = 0; i < tries; ++i) {
    const Stopwatch watch;
    backend.matmul({.a = a, .b = b, .out = out});
    backend.synchronize();
    if (i > 0) least = std::min(least, watch.seconds());
  }
  backend.release(memory);
  return 2.0 * n * n * n / least;
}

double useful_flops_per_token(const PlanCounts& counts, std::int64_t context) {
  return 6.0 * static_cast<double>(counts.forward_macs.executed) / static_cast<double>(2 * context);
}

}  // namespace smlp
