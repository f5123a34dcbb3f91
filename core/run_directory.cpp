#include "core/run_directory.h"

#include <fmt/format.h>

#include <charconv>

#include "core/files.h"

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

int attempt_in_charge(const std::filesystem::path& checkpoints) noexcept {
  constexpr int highest_attempt = 1'000'000;  // a greater number is damage
  const auto text = read_if_there(checkpoints / fence_name);
  int number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number > 0 && number < highest_attempt ? number : 0;
}

}  // namespace smlp
