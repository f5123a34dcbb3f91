#include "core/utf8.h"

namespace smlp {

std::string shortened(const std::string& text, std::size_t most) {
  constexpr std::size_t most_of_a_character = 4;
  if (text.size() <= most) return text;
  for (auto end = most; end > 0 && most - end < most_of_a_character; --end) {
    if ((text[end] & 0xC0) != 0x80) return text.substr(0, end) + "…";
  }
  return text.substr(0, most) + "…";  // no UTF-8
}

}  // namespace smlp
