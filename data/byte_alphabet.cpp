#include "data/byte_alphabet.h"

namespace smlp {

namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

constexpr std::array<int, 256> characters = [] {
  std::array<int, 256> table{};
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    table[static_cast<std::size_t>(byte)] = stands_for_itself(byte) ? byte : next++;
  }
  return table;
}();

constexpr int largest_character = 256 + 67;

constexpr std::array<int, largest_character + 1> bytes_of_characters = [] {
  std::array<int, largest_character + 1> table{};
  for (auto& byte : table) byte = -1;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    table[static_cast<std::size_t>(characters[byte])] = static_cast<int>(byte);
  }
  return table;
}();

}  // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string spelling;
  for (const char c : bytes) {
    const int character = characters[static_cast<unsigned char>(c)];
    if (character < 0x80) {
      spelling += static_cast<char>(character);
    } else {
      spelling += static_cast<char>(0xC0 | character >> 6);
      spelling += static_cast<char>(0x80 | (character & 0x3F));
    }
  }
  return spelling;
}

std::optional<std::string> read_spelling(std::string_view spelling) {
  std::string bytes;
  for (std::size_t i = 0; i < spelling.size(); ++i) {
    int character = static_cast<unsigned char>(spelling[i]);
    if (character >= 0x80) {
      if ((character & 0xE0) != 0xC0 || i + 1 == spelling.size()) return std::nullopt;
      character = (character & 0x1F) << 6 | (spelling[++i] & 0x3F);
    }
    if (character > largest_character || bytes_of_characters[static_cast<std::size_t>(character)] < 0) {
      return std::nullopt;
    }
    bytes += static_cast<char>(bytes_of_characters[static_cast<std::size_t>(character)]);
  }
  return bytes;
}

std::array<unsigned char, 256> bytes_in_alphabet_order() {
  std::array<unsigned char, 256> order{};
  std::size_t next = 0;
  for (const bool itself : {true, false}) {
    for (int byte = 0; byte < 256; ++byte) {
      if (stands_for_itself(byte) == itself) order[next++] = static_cast<unsigned char>(byte);
    }
  }
  return order;
}

}  // namespace smlp
