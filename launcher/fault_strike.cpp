#include "launcher/fault_strike.h"

#include <fmt/format.h>

#include <csignal>
#include <filesystem>
#include <system_error>

#include "core/clock.h"
#include "core/error.h"
#include "core/host_name.h"
#include "core/process.h"
#include "launcher/processes.h"

namespace smlp {

namespace {

namespace fs = std::filesystem;

std::optional<pid_t> mpirun_of(pid_t launcher) {
  for (const auto child : children_of(launcher)) {
    if (fs::path(command_line(child).substr(0, command_line(child).find(' '))).filename() == "mpirun") return child;
  }
  return std::nullopt;
}

// The second half of a rank's file of the newest checkpoint is gone, as after a disk that lied about what it had written.
// The step of that checkpoint; 0: there is none.
std::int64_t cut_off_newest(const RunFollower& run, int rank) {
  const auto published = run.checkpoints();
  if (published.empty()) return 0;
  const auto file = run.shard(published.back(), rank);
  std::error_code failed;
  const auto size = fs::file_size(file, failed);
  if (!failed) fs::resize_file(file, size / 2, failed);
  return failed ? 0 : published.back();
}

}  // namespace

std::optional<Strike> strike(FaultKind kind, int rank, const RunFollower& run) {
  if (by_rank(kind)) {
    throw Error(ExitCode::usage, fmt::format("a fault of kind {} strikes only in a run that `smlp drill JOB.toml` starts",
                                             name_of(kind)));
  }
  const auto beat = run.beat(rank);
  if (!beat) return std::nullopt;
  if (beat->host != host_name()) {
    throw Error(ExitCode::unavailable, fmt::format("rank {} is on {}: run `smlp drill` there", rank, beat->host));
  }
  std::optional<pid_t> victim = beat->pid;
  const auto launcher = run.launcher();
  if (kind == FaultKind::kill_launcher) victim = launcher;
  if (kind == FaultKind::kill_mpirun) victim = launcher ? mpirun_of(*launcher) : std::nullopt;
  if (!victim || !is_alive(*victim) || !is_alive(beat->pid)) return std::nullopt;
  Strike strike{run.furthest(), beat->attempt, unix_seconds()};
  if (kind == FaultKind::torn_checkpoint && (strike.damaged = cut_off_newest(run, rank)) == 0) return std::nullopt;
  if (kill(*victim, kind == FaultKind::stop ? SIGSTOP : SIGKILL) != 0) return std::nullopt;
  return strike;
}

}  // namespace smlp
