// UTF-8 in text of others, which may hold any bytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace smlp {

// Bytes of the character that `text` begins with; 0 where it begins with none (no surrogate is one, nothing overlong and
// nothing cut off).
inline std::size_t character_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
  if (text.empty()) return 0;
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return text.size() >= 2 && follows(1) ? 2 : 0;
  if (first < 0xF0) {
    if (text.size() < 3 || !follows(1) || !follows(2)) return 0;
    if (first == 0xE0 && byte(1) < 0xA0) return 0;
    return first == 0xED && byte(1) >= 0xA0 ? 0 : 3;
  }
  if (first > 0xF4 || text.size() < 4 || !follows(1) || !follows(2) || !follows(3)) return 0;
  if (first == 0xF0 && byte(1) < 0x90) return 0;
  return first == 0xF4 && byte(1) >= 0x90 ? 0 : 4;
}

// Where it is longer than `most` bytes, cut between two characters, with "…" behind.
std::string shortened(const std::string& text, std::size_t most);

}  // namespace smlp
