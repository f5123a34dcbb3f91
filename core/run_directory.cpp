#include "core/run_directory.h"

#include <fmt/format.h>

#include "core/files.h"
#include "core/json_lines.h"
#include "core/numbers.h"

namespace smlp {

std::filesystem::path RunDirectory::log_folder(int attempt) const {
  return root / "logs" / fmt::format("attempt-{:04}", attempt);
}
std::filesystem::path RunDirectory::log(int attempt, int rank) const {
  return log_folder(attempt) / fmt::format("rank-{:04}.log", rank);
}
std::filesystem::path RunDirectory::error(int attempt, int rank) const {
  return log(attempt, rank).replace_extension(".error");
}
std::filesystem::path RunDirectory::launch_log(int attempt) const { return log_folder(attempt) / "launch.log"; }
std::filesystem::path RunDirectory::verdict(int attempt) const { return log_folder(attempt) / "verdict.json"; }
std::filesystem::path RunDirectory::heartbeat(int rank) const {
  return heartbeats() / fmt::format("rank-{:04}", rank);
}

std::optional<int> as_attempt(std::optional<std::int64_t> number) noexcept {
  const bool sound = number && *number >= 0 && *number < highest_attempt;
  return sound ? std::optional(static_cast<int>(*number)) : std::nullopt;
}

std::optional<int> attempt_in(const nlohmann::json& line) { return as_attempt(integer_in(line, "attempt")); }

int attempt_in_charge(const std::filesystem::path& checkpoints) noexcept {
  const auto text = read_if_there(checkpoints / fence_name);
  std::string_view rest = text;
  return as_attempt(take_whole_number(rest)).value_or(0);
}

}  // namespace smlp
