#include "core/run_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "core/files.h"
#include "core/json_lines.h"
#include "core/numbers.h"

namespace smlp {

namespace {

constexpr std::string_view attempt_prefix = "attempt-", step_prefix = "step-", task_prefix = "task-";

// The number behind `prefix` in a name that holds nothing else.
std::optional<std::int64_t> numbered(std::string_view name, std::string_view prefix) {
  return name.starts_with(prefix) ? parse_whole_number(name.substr(prefix.size())) : std::nullopt;
}

}  // namespace

std::filesystem::path RunDirectory::checkpoint(std::int64_t step) const {
  return checkpoints() / checkpoint_name(step);
}
std::filesystem::path RunDirectory::manifest(std::int64_t step) const { return checkpoint(step) / manifest_name; }
std::filesystem::path RunDirectory::shard(std::int64_t step, int rank) const {
  return checkpoint(step) / shard_name(rank);
}
std::filesystem::path RunDirectory::log_folder(int attempt) const {
  return logs() / fmt::format("{}{:04}", attempt_prefix, attempt);
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

std::string shard_name(int rank) { return fmt::format("rank-{:04}.h5", rank); }
std::string checkpoint_name(std::int64_t step) { return fmt::format("{}{:08}", step_prefix, step); }

std::optional<std::int64_t> step_of_checkpoint(const std::string& name) {
  const auto step = numbered(name, step_prefix);
  return step && checkpoint_name(*step) == name ? step : std::nullopt;
}

std::optional<int> as_attempt(std::optional<std::int64_t> number) noexcept {
  const bool sound = number && *number >= 0 && *number < highest_attempt;
  return sound ? std::optional(static_cast<int>(*number)) : std::nullopt;
}

std::optional<int> attempt_in(const nlohmann::json& line) { return as_attempt(integer_in(line, "attempt")); }

std::optional<std::int64_t> task_number(const RunDirectory& run) {
  auto folder = std::filesystem::absolute(run.root).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  return numbered(folder.filename().string(), task_prefix);
}

int newest_attempt(const RunDirectory& run) {
  int newest = 0;
  for (const auto& entry : entries_of(run.logs())) {
    const auto name = entry.filename().string();
    const auto number = as_attempt(numbered(name, attempt_prefix));
    if (number && run.log_folder(*number).filename() == name) newest = std::max(newest, *number);
  }
  return newest;
}

int attempt_in_charge(const std::filesystem::path& checkpoints) {
  const auto text = read_unless_absent(checkpoints / fence_name).value_or("");
  std::string_view rest = text;
  return as_attempt(take_whole_number(rest)).value_or(0);
}

}  // namespace smlp
