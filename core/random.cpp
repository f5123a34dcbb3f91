#include "core/random.h"

#include <bit>
#include <cmath>
#include <numbers>

namespace smlp {

std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_low, std::uint64_t counter_high) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> c = {
      static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
      static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0], p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

std::uint64_t stable_hash(std::string_view text, std::uint64_t seed) {
  std::uint64_t h = 0xCBF29CE484222325 ^ seed;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  h ^= h >> 33;
  h *= 0xFF51AFD7ED558CCD;
  h ^= h >> 33;
  h *= 0xC4CEB9FE1A85EC53;
  return h ^ (h >> 33);
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name)
    : key_(stable_hash(name, seed * 0x9E3779B97F4A7C15 + 1)) {}

std::uint64_t RandomStream::bits(std::uint64_t index) const {
  const auto block = philox(key_, index, 0);
  return std::uint64_t{block[1]} << 32 | block[0];
}

double RandomStream::uniform(std::uint64_t index) const {
  return static_cast<double>(bits(index) >> 11) * 0x1.0p-53;
}

double RandomStream::normal(std::uint64_t index) const {
  const auto block = philox(key_, index, 1);
  const auto unit = [](std::uint32_t high, std::uint32_t low) {  // (0, 1]
    return (static_cast<double>((std::uint64_t{high} << 32 | low) >> 11) + 1.0) * 0x1.0p-53;
  };
  const double radius = std::sqrt(-2.0 * std::log(unit(block[1], block[0])));
  return radius * std::cos(2.0 * std::numbers::pi * unit(block[3], block[2]));
}

std::uint64_t permute(std::uint64_t position, std::uint64_t size, std::uint64_t key) {
  if (size < 2) return 0;
  const int half = (static_cast<int>(std::bit_width(size - 1)) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  std::uint64_t x = position;
  do {
    std::uint64_t left = x >> half, right = x & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t mixed = philox(key, right, round)[0] & mask;
      const std::uint64_t next = left ^ mixed;
      left = right;
      right = next;
    }
    x = left << half | right;
  } while (x >= size);
  return x;
}

}  // namespace smlp
