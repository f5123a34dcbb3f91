#include "core/divisors.h"

#include <fmt/format.h>

#include <algorithm>

namespace smlp {

std::int64_t largest_divisor(std::int64_t of, std::int64_t at_most) {
  std::int64_t best = 1;
  for (std::int64_t d = 1; d * d <= of; ++d) {
    if (of % d != 0) continue;
    for (const auto candidate : {d, of / d}) {
      if (candidate <= at_most) best = std::max(best, candidate);
    }
  }
  return best;
}

namespace {
std::int64_t least_divisor_from(std::int64_t of, std::int64_t at_least) {
  std::int64_t best = of;
  for (std::int64_t d = 1; d * d <= of; ++d) {
    if (of % d != 0) continue;
    for (const auto candidate : {d, of / d}) {
      if (candidate >= at_least) best = std::min(best, candidate);
    }
  }
  return best;
}

}  // namespace

std::string neighbours(std::int64_t of, std::int64_t wrong) {
  const auto below = largest_divisor(of, wrong), above = least_divisor_from(of, wrong);
  return below == above || above < wrong ? fmt::format("{}", below) : fmt::format("{} or {}", below, above);
}

}  // namespace smlp
