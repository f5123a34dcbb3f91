#include "tensor/sinkhorn.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace smlp {

namespace {

constexpr double least_sum = 1e-8;  // added to every sum before it divides

// row = exp(row - its largest), 0 for what is not finite.
void exponentials(std::span<const double> logits, std::span<double> row) {
  double most = -INFINITY;
  for (const double logit : logits) {
    if (std::isfinite(logit)) most = std::max(most, logit);
  }
  for (std::size_t e = 0; e < row.size(); ++e) row[e] = std::isfinite(logits[e]) ? std::exp(logits[e] - most) : 0;
}

}  // namespace

int Sinkhorn::scale(std::span<const double> logits, std::int64_t tokens, std::int64_t experts, std::span<double> shares,
                    int limit) {
  const auto width = static_cast<std::size_t>(experts);
  const double of_token = 1 / static_cast<double>(tokens), of_expert = 1 / static_cast<double>(experts);
  const auto row = [&](std::size_t s) { return shares.subspan(s * width, width); };
  row_.resize(static_cast<std::size_t>(tokens));
  column_.assign(width, 1);
  for (std::size_t s = 0; s < row_.size(); ++s) exponentials(logits.subspan(s * width, width), row(s));
  double moved = INFINITY;
  int round = 0;
  for (; moved > tolerance && round < limit; ++round) {
    sum_.assign(width, 0);
    for (std::size_t s = 0; s < row_.size(); ++s) {
      const auto of = row(s);
      row_[s] = of_token / (std::inner_product(of.begin(), of.end(), column_.begin(), 0.0) + least_sum);
      for (std::size_t e = 0; e < width; ++e) sum_[e] += row_[s] * of[e];
    }
    moved = 0;
    for (std::size_t e = 0; e < width; ++e) {
      const double factor = of_expert / (sum_[e] + least_sum);
      moved += std::abs(factor - column_[e]) * of_expert;
      column_[e] = factor;
    }
  }
  for (std::size_t s = 0; s < row_.size(); ++s) {
    for (std::size_t e = 0; e < width; ++e) row(s)[e] *= column_[e] * row_[s];
  }
  return moved > tolerance ? -round : round;
}

}  // namespace smlp
