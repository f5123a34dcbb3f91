#include "launcher/batch_guard.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"
#include "core/program.h"
#include "core/tell.h"
#include "launcher/processes.h"
#include "launcher/run_history.h"
#include "launcher/signal_queue.h"
#include "launcher/targets.h"
#include "slurm/submit_environment.h"

namespace smlp {

namespace {

constexpr double pulse_seconds = 5;
constexpr double again_seconds = 30;  // between two starts of the step
constexpr double end_seconds = 2;
constexpr double all_at_once_seconds = 0.5;  // who kills all of a job kills us as well within this

// The same process, so that it is the batch script's still. Where the program can't be executed, the work is done here.
[[noreturn]] void become_guard(const RunDirectory& run, pid_t launcher, std::int64_t most_requeues) {
  const auto program = std::filesystem::read_symlink("/proc/self/exe").string(), place = run.root.string();
  const auto child = fmt::format("{}", launcher), most = fmt::format("{}", most_requeues);
  execl(program.c_str(), program.c_str(), "guard", "--run-dir", place.c_str(), "--launcher", child.c_str(), "--max-requeues",
        most.c_str(), nullptr);
  std::_Exit(guard_launcher({.run = run, .launcher = launcher, .allocation = *allocation_of_environment(),
                             .most_requeues = most_requeues}, Controller()));
}

int pass_signals_on(pid_t launcher) {
  SignalQueue signals;
  for (int status = 0;;) {
    if (waitpid(launcher, &status, WNOHANG) != 0) return status;
    if (const auto signal = signals.next(1); signal && asks_to_stop(*signal)) kill(launcher, *signal);
  }
}

}  // namespace

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
      write_atomically(run_.launcher_pulse(), fmt::format("{} {} {:.0f}\n", node_name(), getpid(), unix_seconds()));
    }
    if (step_ != 0 && waitpid(step_, nullptr, WNOHANG) != 0) step_ = 0;
    if (step_ == 0 && now - started_at_ >= again_seconds) start();
  } catch (const std::exception& error) {
    pulse_at_ = started_at_ = now;
    tell("{}; the run goes on, but nobody watches the launcher's node", error.what());
  }
}

void BatchGuard::start() {
  const auto here = node_name();
  const auto other = std::find_if(nodes_.begin(), nodes_.end(), [&](const auto& node) { return node != here; });
  if (other == nodes_.end()) return;
  const auto log = run_.guard_log();
  ProcessStart process;
  process.command = {"srun", "--overlap", "--mpi=none", "--cpu-bind=none", "--nodes=1", "--ntasks=1", "--input=none",
                     "--immediate=30", fmt::format("--job-name={}", guard_step_name),
                     "--output=none", "--nodelist=" + *other, std::filesystem::read_symlink("/proc/self/exe").string(), "guard",
                     "--run-dir", run_.root.string(), "--node", here};
  process.environment = step_environment(own_environment());
  process.output = log;
  std::filesystem::create_directories(log.parent_path());
  step_ = start_process(process);
  started_at_ = monotonic_seconds();
}

void keep_guard(const GuardOptions& options, const Controller& controller) {
  std::string pulse;
  double heard = monotonic_seconds();
  for (int down = 0; down < 2; sleep_seconds(options.look_seconds)) {
    if (auto now = read_if_there(options.run.launcher_pulse()); now != pulse) {
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
  forget_targets(options.run);
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

bool in_the_batch_scripts_place() {
  const auto allocation = allocation_of_environment();
  const char* script = std::getenv("SLURM_TASK_PID");
  return allocation && allocation->in_batch_script && script && script == fmt::format("{}", getpid());
}

void guard_this_launcher(const RunDirectory& run, std::int64_t most_requeues) {
  hold_back_signals();
  std::fflush(nullptr);
  const pid_t guard = getpid(), launcher = fork();
  if (launcher == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard) _exit(128 + SIGKILL);
    return;
  }
  if (launcher > 0) become_guard(run, launcher, most_requeues);
  tell("no second process could be started ({}): the run goes on, but where its launcher is killed, the job fails",
       std::strerror(errno));
}

int guard_launcher(const LauncherGuardOptions& options, const Controller& controller) {
  const int status = pass_signals_on(options.launcher);
  if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
  sleep_seconds(all_at_once_seconds);
  const int signal = WTERMSIG(status);
  forget_targets(options.run);
  RunHistory history(options.run);
  const auto event = [&](const char* name, const std::string& words) { history.event(name, 0, history.newest_step(), words); };
  event("launcher_lost", fmt::format("the launcher, process {}, was killed by {}", options.launcher, signal_text(signal)));
  const auto job = job_words(options.allocation);
  const FailureCount failures{.earlier = history.count_events(after_failure_event, job), .most = options.most_requeues};
  event(after_failure_event, job);
  const auto handover = hand_over_job(controller, options.allocation, Leaving::after_failure, failures);
  event(handover.again ? "requeued" : "not_requeued", handover.words);
  tell("the launcher was killed by {}; {}", signal_text(signal), handover.words);
  return handover.again ? static_cast<int>(ExitCode::call_again) : 128 + signal;
}

std::string job_words(const Allocation& allocation) { return fmt::format("job {}", allocation.controller_id()); }

Handover hand_over_job(const Controller& controller, const Allocation& allocation, Leaving leaving, FailureCount failures) {
  if (leaving == Leaving::on_request) return {};
  if (leaving == Leaving::after_failure && failures.earlier >= failures.most) {
    return {.again = false,
            .words = fmt::format("{} was requeued {} times after failures already (slurm.max_requeues)", job_words(allocation),
                                 failures.earlier)};
  }
  const auto job = allocation.controller_id();
  const auto answer = controller.state_of_job(job);
  if (answer.state == JobState::cancelled) return {.again = false, .words = "the job was cancelled"};
  if (answer.state == JobState::requeued) return {.again = true, .words = "SLURM has requeued the job by itself"};
  const auto requeue = controller.requeue(job);
  if (requeue.done) return {.again = true, .words = fmt::format("job {} is requeued", job)};
  return {.again = false, .words = fmt::format("job {} could not be requeued ({}); submit it again", job, requeue.words)};
}

}  // namespace smlp
