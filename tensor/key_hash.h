// Hashes what a library's plan of a product hangs on, number by number, for the tables in which such plans are kept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace smlp {

struct KeyHash {
  template <std::size_t n>
  std::size_t operator()(const std::array<std::int64_t, n>& key) const noexcept {
    std::uint64_t h = 0x9E3779B97F4A7C15;
    for (const auto part : key) {
      h = (h ^ static_cast<std::uint64_t>(part)) * 0xFF51AFD7ED558CCD;
      h ^= h >> 32;
    }
    return h;
  }
};

}  // namespace smlp
