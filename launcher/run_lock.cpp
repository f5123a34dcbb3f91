#include "launcher/run_lock.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/lock_holder.h"
#include "slurm/allocation.h"

namespace smlp {

namespace {

constexpr double glance_seconds = 0.3;

void pause_briefly() { sleep_seconds(0.02); }

FileLock lock_within(double seconds, const std::filesystem::path& file) {
  for (const double end = monotonic_seconds() + seconds;; pause_briefly()) {
    auto lock = FileLock::try_lock(file, FileLock::Kind::exclusive);
    if (lock.held() || monotonic_seconds() > end) return lock;
  }
}

// A new holder may not have written its words yet.
std::string describe_holder(const RunDirectory& run) {
  for (const double end = monotonic_seconds() + 1;; pause_briefly()) {
    if (const auto holder = possible_holder(run.launcher_lock())) return holder->words();
    if (monotonic_seconds() > end) return "another process";
  }
}

}  // namespace

Patience patience_here() {
  const auto allocation = allocation_of_environment();
  if (!allocation || !allocation->in_batch_script || allocation->restarts == 0) return {};
  // Long enough for a supervisor that was cut off to see its ranks hang, to find no node and to be refused a requeue.
  return {.holder_seconds = 300, .workers_seconds = 10, .pass_by_workers = true};
}

FileLock take_run(const RunDirectory& run, const Patience& patience) {
  auto lock = lock_within(glance_seconds, run.launcher_lock());  // which `smlp status` may hold while it looks
  if (!lock.held() && patience.holder_seconds > 0) {
    fmt::print("waiting for {}, which still holds {}\n", describe_holder(run), run.root.string());
    std::fflush(stdout);
    lock = lock_within(patience.holder_seconds, run.launcher_lock());
  }
  if (!lock.held()) {
    throw Error(ExitCode::call_again, fmt::format("{} is in use by {}; stop it first, or choose another --run-dir",
                                                  run.root.string(), describe_holder(run)));
  }
  write_holder(lock);
  for (const double end = monotonic_seconds() + patience.workers_seconds;; pause_briefly()) {
    if (FileLock::try_lock(run.workers_lock(), FileLock::Kind::exclusive).held()) return lock;
    if (monotonic_seconds() > end && patience.pass_by_workers) return lock;
    if (monotonic_seconds() > end) {
      throw Error(ExitCode::call_again,
                  fmt::format("workers of an earlier start of {} are still there after {:.0f} s; see which processes "
                              "hold {}",
                              run.root.string(), patience.workers_seconds, run.workers_lock().string()));
    }
  }
}

}  // namespace smlp
