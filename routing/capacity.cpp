#include "routing/capacity.h"

#include <algorithm>
#include <cmath>

namespace smlp {

std::int64_t Capacity::of(std::int64_t tokens, std::int64_t experts, std::int64_t choices) const {
  const auto even = static_cast<double>((tokens + experts - 1) / experts);
  const auto exact = static_cast<double>(tokens) / static_cast<double>(experts);
  double places = 0;
  if (fraction > 0) {
    places = std::ceil(fraction * static_cast<double>(tokens));
  } else if (rule == Rule::fairseq) {
    places = static_cast<double>(choices) * std::floor(factor * even);
  } else if (rule == Rule::mesh) {
    places = std::floor(static_cast<double>(tokens) * factor / static_cast<double>(experts));
  } else {
    places = static_cast<double>(choices) * std::ceil(exact * factor);
  }
  const double most = static_cast<double>(tokens);
  const auto enough = static_cast<std::int64_t>(std::min(places, most));
  return std::min(std::max({enough, minimum, std::int64_t{1}}), std::max(tokens, std::int64_t{1}));
}

}  // namespace smlp
