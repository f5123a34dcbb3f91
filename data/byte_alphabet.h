// GPT-2's spelling of bytes: each byte is a visible character of its own, so that tokens can be written into
// JSON and into lines. '!' to '~', U+00A1 to U+00AC and U+00AE to U+00FF stand for themselves; the other 68
// bytes are U+0100, U+0101, ... in their order (a blank is U+0120).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace smlp {

std::string spell_bytes(std::string_view bytes);                      // as UTF-8
std::optional<std::string> read_spelling(std::string_view spelling);  // absent when a character means no byte

// The bytes in the order of GPT-2's first 256 ids: those that stand for themselves, then the others.
std::array<unsigned char, 256> bytes_in_alphabet_order();

}  // namespace smlp
