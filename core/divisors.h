// Divisors of a number, for the remedies that go with a value that does not divide it.
#pragma once

#include <cstdint>
#include <string>

namespace smlp {

std::int64_t largest_divisor(std::int64_t of, std::int64_t at_most);
// The divisors nearest to a number that is none: "4 or 8".
std::string neighbours(std::int64_t of, std::int64_t wrong);

}  // namespace smlp
