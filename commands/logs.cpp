#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>

#include "commands/commands.h"
#include "commands/usage.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
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

// A log that grows, printed piece by piece. It may not be there yet.
class PrintedLog {
 public:
  explicit PrintedLog(std::filesystem::path path) : path_(std::move(path)) {}
  ~PrintedLog() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  PrintedLog(const PrintedLog&) = delete;
  PrintedLog& operator=(const PrintedLog&) = delete;

  bool is_there() const { return descriptor_ >= 0; }
  // What has come since the last call. Throws Error(io_failed).
  void print() {
    if (descriptor_ < 0) descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0 && errno == ENOENT) return;
    if (descriptor_ < 0) fail_io("opening", path_, errno);
    char buffer[1 << 16];
    for (ssize_t got = 1; got != 0;) {
      got = ::read(descriptor_, buffer, sizeof buffer);
      if (got > 0) std::fwrite(buffer, 1, static_cast<std::size_t>(got), stdout);
      if (got < 0 && errno != EINTR) fail_io("reading", path_, errno);
    }
    std::fflush(stdout);
  }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

std::string ranks_with_logs(const RunDirectory& run, int attempt) {
  std::string found;
  for (int rank = 0; rank < 100000 && std::filesystem::exists(run.log(attempt, rank)); ++rank) {
    found = fmt::format("0 to {}", rank);
  }
  return found.empty() ? "no rank has one; the words of mpirun or srun are in " + run.launch_log(attempt).string()
                       : "there are ranks " + found;
}

struct Shown {
  bool any = false;  // there was a log
  std::optional<int> attempt;  // that follows; none: that was all
};

// That of an attempt, to its end where it is followed.
Shown print_log(const RunDirectory& run, int attempt, const LogOptions& options) {
  PrintedLog log(run.log(attempt, options.rank));
  for (log.print(); options.follow; sleep_seconds(0.1)) {
    const bool live = is_live(run);
    log.print();
    const auto next = options.attempt == 0 ? attempt_after(attempt, run) : std::nullopt;
    if (next || !live) return {log.is_there(), next};
  }
  return {log.is_there(), std::nullopt};
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
  for (bool any = false;;) {
    const auto next = print_log(run, attempt, options);
    any = any || next.any;
    if (!next.attempt && any) return;
    if (!next.attempt) {
      throw Error(ExitCode::configuration, fmt::format("there is no {}; {}", run.log(attempt, options.rank).string(),
                                                       ranks_with_logs(run, attempt)));
    }
    attempt = *next.attempt;
    tell("attempt {} begins", attempt);
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
