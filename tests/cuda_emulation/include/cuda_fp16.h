// IEEE half precision on the host, rounding to nearest even: only what tensor/cuda uses.
#pragma once

#include <bit>
#include <cstdint>

struct __half {
  std::uint16_t bits;
};

inline float __half2float(__half value) {
  const std::uint32_t sign = (value.bits & 0x8000u) << 16, rest = value.bits & 0x7FFFu;
  if (rest >= 0x7C00) return std::bit_cast<float>(sign | 0x7F800000 | (rest & 0x3FF) << 13);
  const float scaled = std::bit_cast<float>(rest << 13) * 0x1p112f;  // denormals come out right, too
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(scaled));
}

inline __half __float2half_rn(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
  if (rest > 0x7F800000) return {static_cast<std::uint16_t>(sign | 0x7E00)};
  if (rest >= 0x477FF000) return {static_cast<std::uint16_t>(sign | 0x7C00)};  // from 65520 on: infinity
  if (rest < 0x38800000) {  // denormal: the sum with 0.5 rounds at its last bit
    const auto sum = std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest) + 0.5f);
    return {static_cast<std::uint16_t>(sign | (sum - 0x3F000000))};
  }
  const std::uint32_t rounded = rest + 0xFFF + (rest >> 13 & 1) - 0x38000000;
  return {static_cast<std::uint16_t>(sign | rounded >> 13)};
}
