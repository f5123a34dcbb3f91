#include "params/initial.h"

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "core/cores.h"
#include "core/random.h"

namespace smlp {

namespace {

double dot(const double* a, const double* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Gram-Schmidt of normal rows, each row made orthogonal twice (once loses digits). A space of `width`
// dimensions holds `width` orthogonal rows; the rows after that start a new set.
std::vector<double> orthonormal_rows(const RandomStream& random, std::int64_t rows, std::int64_t width) {
  std::vector<double> all(static_cast<std::size_t>(rows * width));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = random.normal(i);
  for (std::int64_t r = 0; r < rows; ++r) {
    double* row = all.data() + r * width;
    const std::int64_t set = r / width * width;
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t other = set; other < r; ++other) {
        const double* before = all.data() + other * width;
        const double shared = dot(row, before, width);
        for (std::int64_t i = 0; i < width; ++i) row[i] -= shared * before[i];
      }
      const double length = std::sqrt(dot(row, row, width));
      for (std::int64_t i = 0; i < width; ++i) row[i] /= length;
    }
  }
  return all;
}

}  // namespace

Initial Initial::xavier(std::int64_t in, std::int64_t out) {
  return uniform(std::sqrt(6.0 / static_cast<double>(in + out)));
}

InitialValues::InitialValues(const ParameterSpec& spec, std::uint64_t seed)
    : spec_(spec), key_(RandomStream(seed, spec.name).key()), offset_(spec.shard * spec.shape.size()) {
  if (spec.initial.kind == Initial::Kind::orthonormal_rows) {
    const std::int64_t width = spec.shape.last();
    orthonormal_ = orthonormal_rows(RandomStream(key_), spec.shape.size() / width * spec.shards, width);
  }
}

double InitialValues::value(std::int64_t global_index) const {
  const auto index = static_cast<std::uint64_t>(global_index);
  const double scale = spec_.initial.scale;
  if (spec_.lower_triangle) {
    const std::int64_t side = spec_.shape.last();
    if (global_index % side > global_index / side % side) return 0;
  }
  switch (spec_.initial.kind) {
    case Initial::Kind::constant:
      return scale;
    case Initial::Kind::uniform:
      return scale * (2 * RandomStream(key_).uniform(index) - 1);
    case Initial::Kind::normal:
      return scale * RandomStream(key_).normal(index);
    case Initial::Kind::orthonormal_rows:
      return scale * orthonormal_[static_cast<std::size_t>(index)];
  }
  return 0;
}

void InitialValues::write(std::int64_t first, std::span<double> out) const {
  constexpr std::size_t least_share = std::size_t{1} << 15;  // worth a thread
  const auto write_share = [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) out[i] = value(offset_ + first + static_cast<std::int64_t>(i));
  };
  const auto shares = std::clamp<std::size_t>(out.size() / least_share, 1, static_cast<std::size_t>(threads_here()));
  std::vector<std::jthread> others;
  for (std::size_t share = 1; share < shares; ++share) {
    others.emplace_back(write_share, out.size() * share / shares, out.size() * (share + 1) / shares);
  }
  write_share(0, out.size() / shares);
}

}  // namespace smlp
