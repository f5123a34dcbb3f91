// Tables of hash routing: for every token id the expert that it goes to, always. Pure functions on host memory.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace smlp {

// Python's `random` (Mersenne Twister MT19937, Matsumoto and Nishimura 1998), as far as a table needs it: the numbers
// after random.seed(seed), seed >= 0.
class PythonRandom {
 public:
  explicit PythonRandom(std::uint64_t seed);
  std::uint32_t bits();                            // getrandbits(32)
  std::int32_t randrange(std::int32_t below);      // randrange(0, below), below >= 1

 private:
  void refill();

  static constexpr std::size_t size = 624;
  std::array<std::uint32_t, size> state_{};
  std::size_t next_ = size;
};

// ParlAI's hash_ladder: after seed(seed), randrange(0, experts) for every id in order.
std::vector<std::int32_t> random_table(std::int64_t vocabulary, std::int64_t experts, std::uint64_t seed);

// The paper's balanced table: tokens in falling frequency (ties: the lower id first), each to the expert whose tokens
// are the fewest so far (ties: the expert of fewer ids, then the lower index).
std::vector<std::int32_t> balanced_table(std::span<const double> frequency, std::int64_t experts);

}  // namespace smlp
