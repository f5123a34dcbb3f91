// Which elements dropout keeps: a function of key and element alone, the same on every device and layout.
#pragma once

#include <cstdint>

#include "core/random.h"

namespace smlp {

// Of a stream named by RandomStream::key(), at one step.
inline std::uint64_t dropout_key(std::uint64_t stream, std::int64_t step) {
  return RandomStream(stream).bits(static_cast<std::uint64_t>(step));
}

// Word element % 4 of Philox's block element / 4, second stream (counter_high 2).
inline std::uint32_t dropout_word(std::uint64_t key, std::uint64_t element) {
  return philox(key, element / 4, 2)[element % 4];
}

inline bool dropout_keeps(std::uint64_t key, std::uint64_t element, double rate) {
  return dropout_word(key, element) >= static_cast<std::uint32_t>(rate * 0x1p32);
}

}  // namespace smlp
