#include "core/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "core/error.h"

namespace smlp {

double upper_median(std::vector<double> values) {
  expect(!values.empty(), "the median of no values was asked for");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double median(std::vector<double> values) {
  const double upper = upper_median(values);
  if (values.size() % 2 == 1) return upper;
  for (auto& value : values) value = -value;
  return (upper - upper_median(std::move(values))) / 2;
}

void keep_newest(std::vector<double>& values, double value, std::size_t count) {
  values.push_back(value);
  if (values.size() > count) values.erase(values.begin());
}

bool is_duration(double seconds) noexcept { return std::isfinite(seconds) && seconds >= 0; }

}  // namespace smlp
