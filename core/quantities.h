// Sizes and counts, short and for people.
#pragma once

#include <cstdint>
#include <string>

namespace smlp {

std::string size_text(std::int64_t bytes, int decimals = 1);  // "17 B", "3.1 GiB"
std::string perplexity_text(double perplexity);               // "17.25"; of a run that diverged "3.21e+92"
std::string count_text(double count);                         // "812", "12.3k", "3.00M", "1.25B"
std::string counted(std::int64_t count, const char* one);     // "1 rank", "3 ranks"

}  // namespace smlp
