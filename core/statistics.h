// What a list of measurements comes down to.
#pragma once

#include <cstddef>
#include <vector>

namespace smlp {

// The middle one; of an even number the upper of the two in the middle. `values` is not empty.
double upper_median(std::vector<double> values);
// The mean of those two. `values` is not empty.
double median(std::vector<double> values);
// Puts `value` behind the others, of which the last `count` stay.
void keep_newest(std::vector<double>& values, double value, std::size_t count);
// A number of seconds, as others say it: finite, and not negative.
bool is_duration(double seconds) noexcept;

}  // namespace smlp
