// One attempt of a Supervisor: its ranks are started, watched, ended, and what became of them is recorded.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iterator>
#include <optional>
#include <set>
#include <string>

#include "core/attempt_end.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/host_name.h"
#include "core/process.h"
#include "launcher/mpi_launch.h"
#include "launcher/processes.h"
#include "launcher/supervisor.h"
#include "launcher/targets.h"

namespace smlp {

namespace {

constexpr double watch_seconds = 0.1, together_seconds = 0.1;
// Ranks write twice a second. Seldomer, and one that is stopped is not known by its silence yet when the others give up,
// within the shortest limits.
constexpr double heartbeats_seconds = 0.2;
constexpr double end_seconds = 10;           // within which the processes of an ended attempt must be gone
constexpr double end_elsewhere_seconds = 5;  // on other nodes, of which one may be cut off and never tell

// Of ranks on other hosts nobody here knows: when they are gone, their heartbeats fall silent.
bool all_ranks_are_gone(const HeartbeatWatch& heartbeats, std::int64_t ranks) {
  const auto here = heartbeats.pids_here();
  return std::ssize(here) == ranks && std::none_of(here.begin(), here.end(), is_alive);
}

}  // namespace

struct Supervisor::Attempt {
  Attempt(int n, HeartbeatWatch w) : number(n), heartbeats(std::move(w)) {}
  int number;
  HeartbeatWatch heartbeats;
  double looked_at = -1e9;    // at the heartbeats
  pid_t starter = 0;  // mpirun or srun
  std::set<pid_t> strangers;  // children of ours from before
  std::optional<int> status;  // of the starter, once it has ended
  std::string started = utc_time();
  std::string hang;                  // why the attempt was ended by us
  std::optional<Verdict> verdict;    // what the ranks themselves said of its end
  bool killed = false;               // at once, on the second request
  std::optional<double> empty_since; // all ranks gone, the starter still there
};

Outcome Supervisor::run_attempt(int number) {
  attempt_number_ = number;
  Attempt attempt(number, HeartbeatWatch(run_, number, layout_.ranks, options_.watch));
  auto outcome = start_or_why_not(attempt);
  if (attempt.starter != 0) {
    watch(attempt);
    clear_processes(attempt);
    outcome = conclude(attempt);
  }
  verdict_ = attempt.verdict;
  record(attempt, outcome);
  return outcome;
}

// A disk without room for a folder ends an attempt, not the run.
Outcome Supervisor::start_or_why_not(Attempt& attempt) {
  metrics_.begin_attempt(attempt.number, monotonic_seconds());
  choice_.begin_attempt(attempt.number, history_.newest_step().has_value());
  int code = static_cast<int>(ExitCode::fault);
  std::string reason;
  try {
    start(attempt);
    return {};
  } catch (const Error& error) {
    code = static_cast<int>(error.code());
    reason = error.what();
  } catch (const std::filesystem::filesystem_error& error) {
    code = static_cast<int>(ExitCode::io_failed);
    reason = error.what();
  }
  return {code, cause_of(code), fmt::format("no rank was started: {}", reason)};
}

void Supervisor::start(Attempt& attempt) {
  std::filesystem::create_directories(run_.log_folder(attempt.number));
  std::filesystem::create_directories(run_.checkpoints());
  // Those of an earlier attempt are only in the way: who reads them passes over what the disk does not let go.
  std::error_code stays;
  std::filesystem::remove_all(run_.heartbeats(), stays);
  std::filesystem::create_directories(run_.heartbeats());
  const auto newest = history_.newest_step();
  std::error_code absent;
  targets_seen_ = std::filesystem::last_write_time(run_.targets(), absent);

  std::vector<std::string> program = {options_.worker.string(), "train", "--run-dir", run_.root.string(), "--attempt",
                                      fmt::format("{}", attempt.number)};
  const auto add = [&](const char* flag, const std::string& value) { program.insert(program.end(), {flag, value}); };
  if (not_after_) add("--not-after", fmt::format("{}", *not_after_));
  if (layout_.binding.bound) {
    const auto bind = binding_option({.ranks = layout_.ranks_per_node, .each = layout_.threads});
    program.insert(program.end(), bind.begin(), bind.end());
  }
  if (options_.init_from) add("--init-from", std::filesystem::absolute(*options_.init_from).string());
  auto process = cluster_->start(layout_, program);
  process.output = run_.launch_log(attempt.number);
  for (const auto child : children_of(getpid())) attempt.strangers.insert(child);
  attempt.starter = start_process(process);
  history_.event("attempt_started", attempt.number, newest,
                 fmt::format("{} by {} as process {}; {}; {}", text_of(layout_), layout_.starter, attempt.starter,
                             before_the_choice(newest), layout_.binding.words));
}

// What is known until the ranks have looked at what the checkpoints hold.
std::string Supervisor::before_the_choice(std::optional<std::int64_t> newest) const {
  if (not_after_) return fmt::format("from a checkpoint no newer than step {}", *not_after_);
  return newest ? fmt::format("the newest checkpoint is {}", *newest) : std::string("there is no checkpoint yet");
}

void Supervisor::watch(Attempt& attempt) {
  while (!attempt.status) {
    take_signals(attempt);
    int status = 0;
    if (waitpid(attempt.starter, &status, WNOHANG) == attempt.starter) attempt.status = status;
    const double now = monotonic_seconds();
    cluster_->tend();
    if (!attempt.status) hear_requests(attempt, now);
    if (!attempt.status) watch_heartbeats(attempt, now);
    show_progress(now);
  }
}

// Those that come with a first one are heard before a disk is looked at: it may keep us until they would be a second request.
void Supervisor::take_signals(Attempt& attempt) {
  auto signal = signals_->next(watch_seconds);
  for (const double end = monotonic_seconds() + together_seconds; signal;) {
    if (asks_to_stop(*signal)) take_signal(attempt, *signal);
    signal = signals_->next(std::max(end - monotonic_seconds(), 0.001));
  }
}

void Supervisor::take_signal(Attempt& attempt, int signal) {
  if (!note_signal(signal)) return;
  if (stop_requests_ == 1) {
    ask_to_leave(attempt);
  } else {
    line_.note("leaving at once");
    attempt.killed = true;
    end_now(attempt);
  }
}

void Supervisor::ask_to_leave(Attempt& attempt) {
  attempt.heartbeats.read();
  if (!attempt.heartbeats.all_present()) {
    // A rank that is still starting would not hear the request, and has done nothing that could be lost.
    line_.note("stopping: the ranks were just starting");
    attempt.killed = true;
    end_now(attempt);
    return;
  }
  line_.note("stopping: the ranks save, then leave (again: leave at once)");
  kill(attempt.starter, SIGUSR1);  // mpirun and srun pass it on
}

// A stop that the ranks can't hear: at once, or while they start and have done nothing that could be lost.
void Supervisor::hear_requests(Attempt& attempt, double now) {
  desk_->look(now);
  if (attempt.killed || !desk_->stop()) return;
  if (!attempt.heartbeats.all_present()) attempt.heartbeats.read();
  if (!desk_->stop_now() && attempt.heartbeats.all_present()) return;
  line_.note(desk_->take_stop(attempt.number));
  attempt.killed = true;
  end_now(attempt);
}

void Supervisor::watch_heartbeats(Attempt& attempt, double now) {
  std::optional<std::string> verdict;
  if (now - attempt.looked_at >= heartbeats_seconds) {
    attempt.looked_at = now;
    verdict = attempt.heartbeats.look(now);
  }
  const bool gone = all_ranks_are_gone(attempt.heartbeats, layout_.ranks);
  if (!gone) {
    attempt.empty_since.reset();
  } else {
    // What the ranks left behind may hold their output open, and the starter waits for its end.
    for (const auto pid : orphans(attempt)) kill(pid, SIGKILL);
    if (!attempt.empty_since) attempt.empty_since = now;
  }
  if (gone && now - *attempt.empty_since > options_.starter_end_seconds) {
    verdict = fmt::format("{} did not end within {:.0f} s of its ranks", layout_.starter, options_.starter_end_seconds);
  }
  if (!verdict || !attempt.hang.empty()) return;
  attempt.hang = *verdict;
  history_.event("hang", attempt.number, {}, *verdict);
  end_now(attempt);
}

void Supervisor::show_choice() {
  for (const auto& sentence : choice_.read()) line_.note(sentence);
}

void Supervisor::show_progress(double now) {
  show_targets();
  show_choice();
  if (!metrics_.read(now) || !metrics_.newest()) return;
  if (restart_began_) {
    const auto step = metrics_.first_step().value_or(0);
    const auto sentence = fmt::format("training again at step {}, {:.1f} s after the attempt before had ended", step,
                                      now - *restart_began_);
    line_.note(sentence);
    history_.event("recovered", attempt_number_, step, sentence);
    restart_began_.reset();
  }
  line_.show(*metrics_.newest(), now);
}

void Supervisor::show_targets() {
  std::error_code absent;
  const auto written = std::filesystem::last_write_time(run_.targets(), absent);
  if (absent || written == targets_seen_) return;
  const auto target = first_target(run_);
  if (target.empty()) return;
  targets_seen_ = written;
  line_.note(fmt::format("metrics: http://{}/metrics (all ranks: {})", target, run_.targets().string()));
}

// SIGKILL to everything of this attempt that we know; nothing is waited for.
void Supervisor::end_now(Attempt& attempt) {
  for (const auto pid : children_of(attempt.starter)) kill(pid, SIGKILL);
  for (const auto pid : attempt.heartbeats.pids_here()) {
    if (is_of_run(pid, run_.root)) kill(pid, SIGKILL);
  }
  kill(-attempt.starter, SIGKILL);
}

// Processes of the attempt whose parents have died: they have become our children.
std::set<pid_t> Supervisor::orphans(const Attempt& attempt) const {
  std::set<pid_t> found;
  for (const auto pid : children_of(getpid())) {
    if (pid != attempt.starter && !attempt.strangers.contains(pid) && !cluster_->keeps(pid)) found.insert(pid);
  }
  return found;
}

// No process of the attempt outlives it: what its starter left behind has become our child, is known by its heartbeat,
// or is on another host.
void Supervisor::clear_processes(Attempt& attempt) {
  if (const auto left = cluster_->end_elsewhere(end_elsewhere_seconds); !left.empty()) {
    line_.note(left);
    history_.event("processes_left", attempt.number, {}, left);
  }
  attempt.heartbeats.read();
  for (const double end = monotonic_seconds() + end_seconds;;) {
    auto left = orphans(attempt);
    for (const auto pid : attempt.heartbeats.pids_here()) {
      if (is_alive(pid) && is_of_run(pid, run_.root)) left.insert(pid);
    }
    if (left.empty()) break;
    for (const auto pid : left) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, WNOHANG);
    }
    if (monotonic_seconds() > end) {
      const auto sentence = fmt::format("{} processes of attempt {} can't be ended, process {} first", left.size(),
                                        attempt.number, *left.begin());
      line_.note(sentence);
      history_.event("processes_left", attempt.number, {}, sentence);
      break;
    }
    sleep_seconds(0.01);
  }
  cluster_->attempt_over();
  // Ranks that died within half a second of their choice have no pulse that tells of it; their event does.
  if (attempt.heartbeats.past_start() || history_.last_to_choose() == attempt.number) not_after_.reset();
}

Outcome Supervisor::conclude(Attempt& attempt) {
  auto outcome = explain_end(run_, attempt.number, static_cast<int>(layout_.ranks), layout_.starter, *attempt.status);
  if (!attempt.hang.empty()) {
    outcome = {hung_status, "hang", attempt.hang};
  } else if (attempt.killed && !outcome.complete()) {
    outcome = {stopped_code, "stopped", "ended at once, on request"};
  } else if (outcome.cause == "hang") {
    if (const auto last = attempt.heartbeats.last_rank()) {
      outcome.reason += fmt::format("; rank {} is the one behind: {}", *last, attempt.heartbeats.describe(*last));
    }
    history_.event("hang", attempt.number, {}, outcome.reason);
  }
  attempt.verdict = read_verdict(run_.verdict(attempt.number));
  if (attempt.verdict && !attempt.killed) outcome.reason = attempt.verdict->reason;
  show_choice();
  metrics_.read(monotonic_seconds());
  return outcome;
}

void Supervisor::record(const Attempt& attempt, const Outcome& outcome) {
  AttemptRecord record{.attempt = attempt.number,
                       .ranks = layout_.ranks,
                       .threads = layout_.threads,
                       .expert_ranks = layout_.expert_ranks,
                       .nodes = layout_.nodes,
                       .host = host_name(),
                       .started = attempt.started,
                       .ended = utc_time(),
                       .first_step = metrics_.first_step(),
                       .from_checkpoint = choice_.step(),
                       .exit_code = outcome.code,
                       .cause = outcome.cause,
                       .reason = outcome.reason};
  if (metrics_.newest()) record.last_step = metrics_.newest()->step;
  history_.append(record);
  const bool in_order = outcome.complete() || (outcome.code == stopped_code && !attempt.killed);
  ledger_.attempt_ended(unix_seconds(), attempt.number, record.last_step.has_value(), in_order);
  history_.event("attempt_ended", attempt.number, record.last_step,
                 fmt::format("exit code {}: {}", outcome.code, outcome.reason));
  forget_targets(run_);
  restart_began_ = monotonic_seconds();
}

}  // namespace smlp
