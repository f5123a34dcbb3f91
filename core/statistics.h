// What a list of measurements comes down to.
#pragma once

#include <vector>

namespace smlp {

// The middle one; of an even number the upper of the two in the middle. `values` is not empty.
double upper_median(std::vector<double> values);
// The mean of those two. `values` is not empty.
double median(std::vector<double> values);

}  // namespace smlp
