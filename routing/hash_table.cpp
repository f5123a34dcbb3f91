#include "routing/hash_table.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "core/error.h"

namespace smlp {

PythonRandom::PythonRandom(std::uint64_t seed) {
  // init_genrand(19650218), then init_by_array of the seed's 32-bit words.
  state_[0] = 19650218;
  for (std::size_t i = 1; i < size; ++i) {
    state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + static_cast<std::uint32_t>(i);
  }
  std::vector<std::uint32_t> key{static_cast<std::uint32_t>(seed)};
  if (seed >> 32 != 0) key.push_back(static_cast<std::uint32_t>(seed >> 32));
  std::size_t i = 1, j = 0;
  const auto advance = [&] {
    if (++i < size) return;
    state_[0] = state_[size - 1];
    i = 1;
  };
  const auto mixed = [&](std::uint32_t factor) { return state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * factor); };
  for (std::size_t k = 0; k < size; ++k) {
    state_[i] = mixed(1664525u) + key[j] + static_cast<std::uint32_t>(j);
    advance();
    j = (j + 1) % key.size();
  }
  for (std::size_t k = 0; k + 1 < size; ++k) {
    state_[i] = mixed(1566083941u) - static_cast<std::uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000u;
}

void PythonRandom::refill() {
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % size] & 0x7fffffffu);
    state_[i] = state_[(i + 397) % size] ^ (y >> 1) ^ (y % 2 == 0 ? 0 : 0x9908b0dfu);
  }
  next_ = 0;
}

std::uint32_t PythonRandom::bits() {
  if (next_ == size) refill();
  std::uint32_t y = state_[next_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

std::int32_t PythonRandom::randrange(std::int32_t below) {
  expect(below > 0, "randrange needs at least one number to choose from");
  const int width = static_cast<int>(std::bit_width(static_cast<std::uint32_t>(below)));
  std::uint32_t number = bits() >> (32 - width);
  while (number >= static_cast<std::uint32_t>(below)) number = bits() >> (32 - width);
  return static_cast<std::int32_t>(number);
}

std::vector<std::int32_t> random_table(std::int64_t vocabulary, std::int64_t experts, std::uint64_t seed) {
  PythonRandom random(seed);
  std::vector<std::int32_t> table(static_cast<std::size_t>(vocabulary));
  for (auto& expert : table) expert = random.randrange(static_cast<std::int32_t>(experts));
  return table;
}

std::vector<std::int32_t> balanced_table(std::span<const double> frequency, std::int64_t experts) {
  std::vector<std::size_t> ids(frequency.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](std::size_t a, std::size_t b) { return frequency[a] > frequency[b]; });
  struct Bucket {
    double filled;
    std::int64_t ids;
    std::int32_t expert;
    bool operator>(const Bucket& other) const {
      if (filled != other.filled) return filled > other.filled;
      return ids != other.ids ? ids > other.ids : expert > other.expert;
    }
  };
  std::vector<Bucket> heap;  // the least filled in front
  for (std::int32_t e = 0; e < experts; ++e) heap.push_back({0, 0, e});
  std::vector<std::int32_t> table(frequency.size());
  for (const std::size_t id : ids) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    Bucket& least = heap.back();
    table[id] = least.expert;
    least.filled += frequency[id];
    ++least.ids;
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  return table;
}

}  // namespace smlp
