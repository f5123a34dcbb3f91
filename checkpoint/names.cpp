#include "checkpoint/names.h"

#include <fmt/format.h>

#include "core/numbers.h"

namespace smlp {

namespace {

constexpr std::string_view step_prefix = "step-", aside_infix = ".aside-", temporary_suffix = ".tmp";

std::string name_of_attempt(const std::string& of, int attempt) { return fmt::format("{}.attempt-{:04d}", of, attempt); }

}  // namespace

std::string local_name(std::int64_t step, int attempt) { return name_of_attempt(checkpoint_name(step), attempt); }
std::string temporary_name(std::int64_t step, int attempt) { return temporary_name(checkpoint_name(step), attempt); }
std::string temporary_name(const std::string& of, int attempt) {
  return fmt::format("{}{}", name_of_attempt(of, attempt), temporary_suffix);
}
std::string sidecar_name(int rank) { return fmt::format("rank-{:04d}.json", rank); }

std::optional<std::int64_t> step_of_aside(const std::string& name) {
  const auto infix = name.find(aside_infix);
  if (infix == std::string::npos || !parse_whole_number(std::string_view(name).substr(infix + aside_infix.size()))) {
    return std::nullopt;
  }
  return step_of_checkpoint(name.substr(0, infix));
}

bool is_temporary(const std::string& name) {
  return name.ends_with(temporary_suffix) &&
         (name.starts_with(step_prefix) || name.starts_with(latest_name) || name.starts_with(fence_name));
}

std::filesystem::path free_aside_path(const std::filesystem::path& checkpoint) {
  for (int i = 1;; ++i) {
    auto aside = checkpoint;
    aside += fmt::format("{}{}", aside_infix, i);
    if (!std::filesystem::exists(std::filesystem::symlink_status(aside))) return aside;
  }
}

}  // namespace smlp
