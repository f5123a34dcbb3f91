#include "launcher/batch_guard.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"
#include "core/tell.h"
#include "launcher/processes.h"
#include "launcher/run_history.h"
#include "slurm/program.h"

namespace smlp {

namespace {

constexpr double pulse_seconds = 5;
constexpr double again_seconds = 30;  // between two starts of the step
constexpr double end_seconds = 2;

std::filesystem::path pulse_file(const RunDirectory& run) { return run.root / "launcher.pulse"; }

}  // namespace

std::string slurm_node_name() {
  const char* name = std::getenv("SLURMD_NODENAME");
  return name != nullptr ? name : host_name();
}

BatchGuard::~BatchGuard() {
  if (step_ == 0) return;
  kill(step_, SIGTERM);  // srun ends the step's processes then
  for (const double end = monotonic_seconds() + end_seconds; monotonic_seconds() < end; sleep_seconds(0.02)) {
    if (waitpid(step_, nullptr, WNOHANG) != 0) return;
  }
  kill(step_, SIGKILL);
  waitpid(step_, nullptr, 0);
}

void BatchGuard::tend(double now) {
  try {
    if (now - pulse_at_ >= pulse_seconds) {
      pulse_at_ = now;
      write_atomically(pulse_file(run_), fmt::format("{} {} {:.0f}\n", slurm_node_name(), getpid(), unix_seconds()));
    }
    if (step_ != 0 && waitpid(step_, nullptr, WNOHANG) != 0) step_ = 0;
    if (step_ == 0 && now - started_at_ >= again_seconds) start();
  } catch (const std::exception& error) {
    pulse_at_ = started_at_ = now;
    tell("{}; the run goes on, but nobody watches the launcher's node", error.what());
  }
}

void BatchGuard::start() {
  const auto here = slurm_node_name();
  const auto other = std::find_if(nodes_.begin(), nodes_.end(), [&](const auto& node) { return node != here; });
  if (other == nodes_.end()) return;
  const auto log = run_.root / "logs" / "guard.log";
  ProcessStart process;
  process.command = {"srun", "--overlap", "--mpi=none", "--cpu-bind=none", "--nodes=1", "--ntasks=1", "--input=none",
                     "--immediate=30", "--open-mode=append", fmt::format("--job-name={}", guard_step_name),
                     "--output=none", "--nodelist=" + *other, std::filesystem::read_symlink("/proc/self/exe").string(), "guard",
                     "--run-dir", run_.root.string(), "--node", here};
  process.environment = own_environment();
  process.output = log;
  std::filesystem::create_directories(log.parent_path());
  step_ = start_process(process);
  started_at_ = monotonic_seconds();
}

void keep_guard(const GuardOptions& options, const Controller& controller) {
  std::string pulse;
  double heard = monotonic_seconds();
  for (int down = 0; down < 2; sleep_seconds(options.look_seconds)) {
    if (auto now = read_if_there(pulse_file(options.run)); now != pulse) {
      pulse = std::move(now);
      heard = monotonic_seconds();
    }
    if (monotonic_seconds() - heard < options.silent_seconds) {
      down = 0;
      continue;
    }
    // A node that does not answer SLURM yet may come back; one that is down has lost the batch script.
    const auto answer = controller.states_of_nodes({options.node});
    down = !answer.empty() && answer.front().state == NodeState::down ? down + 1 : 0;
  }
  RunHistory history(options.run);
  // Requeueing ends this process too: what is to be said is said before.
  history.event("launcher_lost", 0, history.newest_step(),
                fmt::format("node {}, where the launcher ran, is down; job {} is to be requeued", options.node, options.job_id));
  auto requeue = controller.requeue(options.job_id);
  if (!requeue.done) {
    history.event("not_requeued", 0, history.newest_step(),
                  fmt::format("job {} could not be requeued yet: {}", options.job_id, requeue.words));
  }
  for (; !requeue.done; requeue = controller.requeue(options.job_id)) sleep_seconds(options.look_seconds);
}

}  // namespace smlp
