#include "core/quantities.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>

namespace smlp {

std::string size_text(std::int64_t bytes, int decimals) {
  constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto size = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; size >= 1024 && unit + 1 < units.size(); ++unit) size /= 1024;
  return fmt::format("{:.{}f} {}", size, unit == 0 ? 0 : decimals, units[unit]);
}

std::string perplexity_text(double perplexity) {
  constexpr double most_written_out = 1e6;
  return perplexity < most_written_out ? fmt::format("{:.2f}", perplexity) : fmt::format("{:.2e}", perplexity);
}

std::string count_text(double count) {
  if (count >= 1e9) return fmt::format("{:.2f}B", count / 1e9);
  if (count >= 1e6) return fmt::format("{:.2f}M", count / 1e6);
  return count >= 1e4 ? fmt::format("{:.1f}k", count / 1e3) : fmt::format("{:.0f}", count);
}

std::string counted(std::int64_t count, const char* one) { return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s"); }

}  // namespace smlp
