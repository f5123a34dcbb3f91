// Whole numbers in the words of others: names of files, variables of SLURM, answers of programs. Digits and nothing else,
// so that " 3", "+3", "-3", "0x3" and "3.0" are no numbers; nor is what 64 bits can't hold.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace smlp {

// The number that `text` is.
std::optional<std::int64_t> parse_whole_number(std::string_view text);

// The number at the front of `text`, which loses its digits; where there is none, `text` stays as it is.
std::optional<std::int64_t> take_whole_number(std::string_view& text);

}  // namespace smlp
