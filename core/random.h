// Counter-based random numbers (Philox4x32-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). A number is a function of (key, index) alone, never of who asks or how often: the same weights,
// dropout masks and data order come out on any number of ranks and after any restart.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace smlp {

// One block of four 32-bit words for a 64-bit key and a 128-bit counter.
std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_low, std::uint64_t counter_high);

// A stream of numbers named by a seed and a word ("blocks.3.in.weight"), indexed from 0.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name);
  explicit RandomStream(std::uint64_t key) : key_(key) {}

  std::uint64_t bits(std::uint64_t index) const;
  double uniform(std::uint64_t index) const;  // [0, 1), 53 bits
  double normal(std::uint64_t index) const;   // mean 0, variance 1 (Box-Muller)
  std::uint64_t key() const { return key_; }

 private:
  std::uint64_t key_;
};

// 64-bit FNV-1a followed by a finaliser: a stable hash for names, never for security.
std::uint64_t stable_hash(std::string_view text, std::uint64_t seed = 0);

// A bijection of [0, size) chosen by key: position -> place, in O(1) time and memory (a Feistel network
// with cycle walking). Used to shuffle an epoch without storing it.
std::uint64_t permute(std::uint64_t position, std::uint64_t size, std::uint64_t key);

}  // namespace smlp
