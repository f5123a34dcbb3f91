#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

#include "commands/commands.h"
#include "commands/usage.h"
#include "core/error.h"
#include "core/run_directory.h"
#include "core/tell.h"
#include "launcher/run_status.h"

namespace smlp {

namespace {

struct LogOptions {
  std::string run;
  int rank = 0, attempt = 0;  // 0: the newest
  bool follow = false;
};

// The next one that has logs: one that could not even begin has none.
std::optional<int> attempt_after(int attempt, const RunDirectory& run) {
  std::error_code unknown;
  for (const int newest = newest_attempt(run); ++attempt <= newest;) {
    if (std::filesystem::is_directory(run.log_folder(attempt), unknown)) return attempt;
  }
  return std::nullopt;
}

// Prints what lies behind `offset`; the new end.
std::streamoff print_from(const std::filesystem::path& path, std::streamoff offset) {
  std::ifstream file(path, std::ios::binary);
  file.seekg(offset);
  char buffer[1 << 16];
  while (file.read(buffer, sizeof buffer) || file.gcount() > 0) {
    std::fwrite(buffer, 1, static_cast<std::size_t>(file.gcount()), stdout);
    offset += file.gcount();
  }
  std::fflush(stdout);
  return offset;
}

std::string ranks_with_logs(const RunDirectory& run, int attempt) {
  std::string found;
  for (int rank = 0; rank < 100000 && std::filesystem::exists(run.log(attempt, rank)); ++rank) {
    found = fmt::format("0 to {}", rank);
  }
  return found.empty() ? "no rank has one; the words of mpirun or srun are in " + run.launch_log(attempt).string()
                       : "there are ranks " + found;
}

void show_logs(const LogOptions& options) {
  const RunDirectory run{options.run};
  const int newest = newest_attempt(run);
  if (newest == 0) {
    throw Error(ExitCode::configuration, fmt::format("{} holds no logs: it is no run directory, or nothing was started "
                                                     "there yet", options.run));
  }
  int attempt = options.attempt > 0 ? options.attempt : newest;
  if (attempt > newest) {
    throw Error(ExitCode::configuration, fmt::format("{} has no attempt {}; the newest is {}", options.run, attempt, newest));
  }
  if (!options.follow && !std::filesystem::exists(run.log(attempt, options.rank))) {
    throw Error(ExitCode::configuration, fmt::format("there is no {}; {}", run.log(attempt, options.rank).string(),
                                                     ranks_with_logs(run, attempt)));
  }
  std::streamoff offset = print_from(run.log(attempt, options.rank), 0);
  while (options.follow) {
    const bool live = is_live(run);
    offset = print_from(run.log(attempt, options.rank), offset);
    if (const auto next = options.attempt == 0 ? attempt_after(attempt, run) : std::nullopt) {
      attempt = *next;
      tell("attempt {} begins", attempt);
      offset = 0;
    } else if (!live) {
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace

void add_logs_command(CLI::App& app) {
  const auto options = std::make_shared<LogOptions>();
  auto* command = app.add_subcommand("logs", "what a rank has to say, in the newest attempt of a run");
  command->add_option("RUN", options->run, "a run directory")->required();
  command->add_option("--rank", options->rank, "whose (0)")->check(whole_number_within(0, 1 << 20))->type_name("N");
  command->add_option("--attempt", options->attempt, "of this attempt")->check(whole_number_within(1, 1 << 30))->type_name("K");
  command->add_flag("--follow", options->follow, "goes on until the run ends, through its restarts");
  command->footer("Example:\n  smlp logs runs/demo --rank 1 --follow");
  command->callback([options] { show_logs(*options); });
}

}  // namespace smlp
