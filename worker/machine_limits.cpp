#include "worker/machine_limits.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "core/error.h"

namespace smlp {

namespace {

constexpr double telling_seconds = 1e-3, most_seconds = 0.5;
constexpr std::int64_t most_doublings = 4;
constexpr int tries = 8;

// Three alike, for as long as it lives.
class Operands {
 public:
  Operands(Backend& backend, Shape shape, DType type) : backend_(backend), first_(nullptr, shape, type) {
    first_.data = backend.allocate(3 * first_.bytes());
    for (std::int64_t i = 0; i < 3; ++i) backend.fill((*this)[i], 1);
  }
  ~Operands() { backend_.release(first_.data); }
  Operands(const Operands&) = delete;
  Operands& operator=(const Operands&) = delete;
  TensorView operator[](std::int64_t i) const { return {first_.at(i * first_.size()), first_.shape, first_.dtype}; }

 private:
  Backend& backend_;
  TensorView first_;
};

// The first one prepares.
double least_seconds(Backend& backend, const std::function<void()>& work) {
  double least = std::numeric_limits<double>::max(), spent = 0;
  for (int i = 0; i < tries && (i < 2 || spent < most_seconds); ++i) {
    const double seconds = backend.timed(work);
    if (i > 0) least = std::min(least, seconds);
    spent += seconds;
  }
  return least;
}

double product_seconds(Backend& backend, DType type, std::int64_t n) {
  const Operands m(backend, {n, n}, type);
  for (const std::int64_t i : {0, 1}) draw(backend, m[i], static_cast<std::uint64_t>(i));
  return least_seconds(backend, [&] { backend.matmul({.a = m[0], .b = m[1], .out = m[2]}); });
}

double addition_seconds(Backend& backend, DType type, std::int64_t n) {
  const Operands v(backend, {n}, type);
  return least_seconds(backend, [&] { backend.add(v[0], v[1], v[2]); });
}

struct Telling {
  std::int64_t size;
  double seconds;
};

using Seconds = double (*)(Backend&, DType, std::int64_t);

Telling telling(Backend& backend, DType type, std::int64_t least, Seconds seconds_of) {
  Telling found{least, seconds_of(backend, type, least)};
  while (found.seconds < telling_seconds && found.size < least << most_doublings) {
    try {
      const auto next = 2 * found.size;
      found = {next, seconds_of(backend, type, next)};
    } catch (const Error& error) {
      if (error.code() != ExitCode::unavailable) throw;
      break;  // no memory for more
    }
  }
  return found;
}

}  // namespace

void draw(Backend& backend, TensorView x, std::uint64_t key) {
  backend.fill(x, 1);
  if (backend.in_host_memory() || x.size() == 0) return;
  const TensorView rows = x.matrix();
  TensorView less(backend.allocate(x.width() * size_of(x.dtype)), {1, x.width()}, x.dtype);
  backend.fill(less, -1);
  less.shape = rows.shape;
  less.stride[0] = 0;  // one row for all
  backend.jitter(rows, 1, key, 0, rows);  // to [0, 2)
  backend.add(rows, less, rows);
  backend.release(less.data);
}

std::int64_t telling_product(Backend& backend, DType type, std::int64_t least) {
  return telling(backend, type, least, product_seconds).size;
}

std::int64_t telling_vector(Backend& backend, DType type, std::int64_t least) {
  return telling(backend, type, least, addition_seconds).size;
}

double product_rate(Backend& backend, DType type, std::int64_t least) {
  const auto [n, seconds] = telling(backend, type, least, product_seconds);
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds;
}

double useful_flops_per_token(const PlanCounts& counts, std::int64_t context) {
  return 6.0 * static_cast<double>(counts.forward_macs.executed) / static_cast<double>(2 * context);
}

}  // namespace smlp
