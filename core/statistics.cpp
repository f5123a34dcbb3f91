#include "core/statistics.h"

#include <algorithm>
#include <cstddef>

#include "core/error.h"

namespace smlp {

double upper_median(std::vector<double> values) {
  expect(!values.empty(), "the median of no values was asked for");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace smlp
