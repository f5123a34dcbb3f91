#include "launcher/supervisor.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/clock.h"
#include "core/error.h"
#include "core/host_name.h"
#include "core/tell.h"
#include "launcher/mpi_launch.h"
#include "launcher/processes.h"

namespace smlp {

namespace {

constexpr double poll_seconds = 0.1;
constexpr double one_request_seconds = 0.1;  // the same signal again within this is no second request
constexpr double silent_end_seconds = 10;  // for the starter to notice that all its ranks are gone
constexpr int stopped_code = static_cast<int>(ExitCode::call_again);

std::string step_text(std::optional<std::int64_t> step) {
  return step ? fmt::format("checkpoint {}", *step) : std::string("the start");
}

}  // namespace

struct Supervisor::Attempt {
  Attempt(int n, HeartbeatWatch w) : number(n), heartbeats(std::move(w)) {}
  int number;
  HeartbeatWatch heartbeats;
  std::optional<SessionFolder> session;
  pid_t starter = 0;  // mpirun or srun
  std::set<pid_t> strangers;  // children of ours from before
  std::optional<int> status;  // of the starter, once it has ended
  std::string started = utc_time();
  std::optional<std::int64_t> from_checkpoint;
  std::string hang;                  // why the attempt was ended by us
  std::optional<Verdict> verdict;    // what the ranks themselves said of its end
  bool killed = false;               // at once, on the second request
  std::optional<double> empty_since; // all ranks gone, the starter still there
};

Supervisor::Supervisor(RunDirectory run, JobConfig job, SupervisorOptions options)
    : run_{std::filesystem::absolute(run.root)},
      job_(std::move(job)),
      options_(std::move(options)),
      history_(run_),
      cluster_(make_cluster(job_, run_, options_.worker)),
      line_(job_, options_.out),
      metrics_(run_.metrics()),
      ledger_(run_) {}

int Supervisor::run() {
  signals_.emplace();
  signal(SIGPIPE, SIG_IGN);  // whoever reads our lines may leave; the run stays
  adopt_orphans();
  SessionFolder::sweep();
  started_at_ = monotonic_seconds();
  ledger_.launcher_began(unix_seconds());
  desk_.emplace(run_, history_);
  recall_bound();
  auto best = history_.newest_step();
  int without_progress = 0;
  const auto asked_to_stop = [this](const char* when) {
    return finish({stopped_code, "stopped", fmt::format("asked to stop {}", when)});
  };
  if (wait_for_room(0) == Room::asked_to_stop) return asked_to_stop("before an attempt");
  for (std::int64_t restarts = 0;; ++restarts) {
    while (!choose_layout()) {
      // A node without room for checkpoints is unfit.
      const auto room = stop_requests_ > 0 ? Room::asked_to_stop : wait_for_room(2 * history_.bytes_of_newest());
      if (room == Room::asked_to_stop) return asked_to_stop("before an attempt");
      if (room != Room::came) return give_up({static_cast<int>(ExitCode::unavailable), "nodes", why_not_}, why_not_);
    }
    if (stop_requests_ > 0) return asked_to_stop("before an attempt");
    const auto outcome = run_attempt(history_.begin_attempt());
    if (outcome.complete() || outcome.is_final() || outcome.code == stopped_code || stop_requests_ > 0) {
      return finish(outcome);
    }
    desk_->look(monotonic_seconds());
    if (desk_->stop()) {
      return finish({stopped_code, "stopped", fmt::format("{}; attempt {} had ended: {}", desk_->take_stop(attempt_number_),
                                                          attempt_number_, outcome.reason)});
    }
    const auto newest = newest_save();
    if (verdict_ && verdict_->stop) return give_up(outcome, "the ranks ask for a decision", false);
    const bool progress = newest && (!best || *newest > *best);
    const auto room = wait_for_room(outcome.cause == "io" ? history_.bytes_of_newest() : 0);
    if (room == Room::asked_to_stop) return asked_to_stop("between two attempts");
    if (progress || (verdict_ && verdict_->budgeted)) without_progress = 0;
    else if (room != Room::came) ++without_progress;
    if (progress) best = newest;
    if (without_progress >= options_.attempts_without_progress) {
      return give_up(outcome, fmt::format("{} attempts in a row brought no new checkpoint", without_progress));
    }
    if (options_.max_restarts >= 0 && restarts >= options_.max_restarts) {
      return give_up(outcome, fmt::format("no more than {} restarts were allowed", options_.max_restarts), false);
    }
    bound_restart(outcome.cause);
    const double wait = pause_after(without_progress);
    const auto sentence = fmt::format("attempt {} ended: {}. {}; attempt {} starts from {} {}",
                                      attempt_number_, outcome.reason, cost_text(outcome), attempt_number_ + 1,
                                      step_text(not_after_ ? not_after_ : newest),
                                      wait > 0 ? fmt::format("in {:.1f} s", wait) : "at once");
    line_.note(sentence);
    history_.event("restart", attempt_number_, not_after_ ? not_after_ : newest, sentence);
    if (!pause(wait)) return asked_to_stop("between two attempts");
  }
}

bool Supervisor::choose_layout() {
  auto choice = cluster_->choose();
  for (const auto& note : choice.notes) {
    line_.note(note);
    history_.event("nodes", attempt_number_, {}, note);
  }
  why_not_ = choice.why_not;
  if (choice.layout) layout_ = std::move(*choice.layout);
  while (const auto signal = signals_->next(0.001)) {
    if (asks_to_stop(*signal)) note_signal(*signal);
  }
  return choice.layout.has_value();
}

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
  metrics_.begin_attempt(monotonic_seconds());
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
  std::filesystem::remove_all(run_.heartbeats());  // those of an earlier attempt would look like hung ranks
  std::filesystem::create_directories(run_.heartbeats());
  attempt.session.emplace();
  attempt.from_checkpoint = history_.newest_step();
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
  auto process = cluster_->start(layout_, program, attempt.session->path());
  process.output = run_.launch_log(attempt.number);
  for (const auto child : children_of(getpid())) attempt.strangers.insert(child);
  attempt.starter = start_process(process);
  history_.event("attempt_started", attempt.number, attempt.from_checkpoint,
                 fmt::format("{} by {} as process {}, from {}; {}", text_of(layout_), layout_.starter, attempt.starter,
                             step_text(not_after_ ? not_after_ : attempt.from_checkpoint), layout_.binding.words));
}

void Supervisor::watch(Attempt& attempt) {
  while (!attempt.status) {
    if (const auto signal = signals_->next(poll_seconds); signal && asks_to_stop(*signal)) {
      take_signal(attempt, *signal);
    }
    int status = 0;
    if (waitpid(attempt.starter, &status, WNOHANG) == attempt.starter) attempt.status = status;
    const double now = monotonic_seconds();
    cluster_->tend();
    if (!attempt.status) hear_requests(attempt, now);
    if (!attempt.status) watch_heartbeats(attempt, now);
    show_progress(now);
  }
}

// False for one that only repeats what is known: the TERM of a preemption or a time limit after its warning, or the second
// of two that coreutils' `timeout` sends, to a program and to its group.
bool Supervisor::note_signal(int signal) {
  history_.event("signal", attempt_number_, {}, fmt::format("{} to the launcher", signal_text(signal)));
  if (first_signal_ == SIGUSR1 && signal == SIGTERM) return false;
  const double now = monotonic_seconds();
  if (signal == first_signal_ && now - first_signal_at_ < one_request_seconds) return false;
  if (first_signal_ == 0) {
    first_signal_ = signal;
    first_signal_at_ = now;
  }
  ++stop_requests_;
  return true;
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
  attempt.heartbeats.read();
  if (!desk_->stop_now() && attempt.heartbeats.all_present()) return;
  line_.note(desk_->take_stop(attempt.number));
  attempt.killed = true;
  end_now(attempt);
}

void Supervisor::watch_heartbeats(Attempt& attempt, double now) {
  auto verdict = attempt.heartbeats.look(now);
  const auto pids = attempt.heartbeats.pids_here();
  const bool gone = attempt.heartbeats.all_present() && std::none_of(pids.begin(), pids.end(), is_alive);
  if (!gone) {
    attempt.empty_since.reset();
  } else {
    // What the ranks left behind may hold their output open, and the starter waits for its end.
    for (const auto pid : orphans(attempt)) kill(pid, SIGKILL);
    if (!attempt.empty_since) attempt.empty_since = now;
  }
  if (gone && now - *attempt.empty_since > silent_end_seconds) {
    verdict = fmt::format("{} did not end within {:.0f} s of its ranks", layout_.starter, silent_end_seconds);
  }
  if (!verdict || !attempt.hang.empty()) return;
  attempt.hang = *verdict;
  history_.event("hang", attempt.number, {}, *verdict);
  end_now(attempt);
}

void Supervisor::show_progress(double now) {
  show_targets();
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
  std::ifstream file(run_.targets());
  const auto groups = nlohmann::json::parse(file, nullptr, false);
  if (!groups.is_array()) return;
  targets_seen_ = written;
  for (const auto& group : groups) {
    if (!group.is_object() || !group.contains("targets")) continue;
    for (const auto& target : group["targets"]) {
      if (!target.is_string()) continue;
      line_.note(fmt::format("metrics: http://{}/metrics (all ranks: {})", target.get<std::string>(),
                             run_.targets().string()));
      return;
    }
  }
}

// SIGKILL to everything of this attempt that we know; nothing is waited for.
void Supervisor::end_now(Attempt& attempt) {
  for (const auto pid : children_of(attempt.starter)) kill(pid, SIGKILL);
  for (const auto pid : attempt.heartbeats.pids_here()) {
    if (command_line(pid).find(run_.root.string()) != std::string::npos) kill(pid, SIGKILL);
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
  if (const auto left = cluster_->end_elsewhere(options_.end_elsewhere_seconds); !left.empty()) {
    line_.note(left);
    history_.event("processes_left", attempt.number, {}, left);
  }
  attempt.heartbeats.read();
  for (const double end = monotonic_seconds() + options_.end_seconds;;) {
    auto left = orphans(attempt);
    for (const auto pid : attempt.heartbeats.pids_here()) {
      if (is_alive(pid) && command_line(pid).find(run_.root.string()) != std::string::npos) left.insert(pid);
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
    usleep(10000);
  }
  attempt.session.reset();
  // Ranks that died within half a second of their choice have no pulse that tells of it; their event does.
  if (attempt.heartbeats.past_start() || history_.last_to_choose() == attempt.number) not_after_.reset();
}

Outcome Supervisor::conclude(Attempt& attempt) {
  auto outcome = explain_end(run_, attempt.number, static_cast<int>(layout_.ranks), layout_.starter, *attempt.status);
  if (!attempt.hang.empty()) {
    outcome = {134, "hang", attempt.hang};
  } else if (attempt.killed) {
    outcome = {stopped_code, "stopped", "ended at once, on request"};
  } else if (outcome.cause == "hang") {
    if (const auto last = attempt.heartbeats.last_rank()) {
      outcome.reason += fmt::format("; rank {} is the one behind: {}", *last, attempt.heartbeats.describe(*last));
    }
    history_.event("hang", attempt.number, {}, outcome.reason);
  }
  attempt.verdict = read_verdict(run_.verdict(attempt.number));
  if (attempt.verdict && !attempt.killed) outcome.reason = attempt.verdict->reason;
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
                       .from_checkpoint = attempt.from_checkpoint,
                       .exit_code = outcome.code,
                       .cause = outcome.cause,
                       .reason = outcome.reason};
  if (metrics_.newest()) record.last_step = metrics_.newest()->step;
  history_.append(record);
  const bool in_order = outcome.complete() || (outcome.code == stopped_code && !attempt.killed);
  ledger_.attempt_ended(unix_seconds(), attempt.number, record.last_step.has_value(), in_order);
  history_.event("attempt_ended", attempt.number, record.last_step,
                 fmt::format("exit code {}: {}", outcome.code, outcome.reason));
  restart_began_ = monotonic_seconds();
}

std::string Supervisor::cost_text(const Outcome&) const {
  const auto from = (not_after_ ? not_after_ : newest_save()).value_or(0);
  const auto last = metrics_.newest() ? metrics_.newest()->step : from;
  if (last <= from) return "No step is lost";
  return fmt::format("{} steps are done again ({} to {}, {:.1f} s of work)", last - from, from + 1, last,
                     metrics_.seconds_since(from));
}

// What lies on the nodes is as good, as long as they are there: the ranks of the next attempt look.
std::optional<std::int64_t> Supervisor::newest_save() const {
  const auto published = history_.newest_step();
  const auto local = metrics_.newest() ? metrics_.newest()->local_step : std::nullopt;
  return std::max(published, local);
}

// What an earlier launcher knew of where the next attempt may go on. The attempt that counts is the last whose ranks chose
// their checkpoint: one that was started after it, and ended before they did, leaves the bound as it was.
void Supervisor::recall_bound() {
  const auto chosen = history_.last_to_choose();
  if (!chosen) return;
  verdict_ = read_verdict(run_.verdict(*chosen));
  bound_restart(history_.cause_of(*chosen));
}

// From where the next attempt may go on, after one that ended for this cause.
void Supervisor::bound_restart(const std::string& cause) {
  if (cause == "diverged" && !verdict_) {
    not_after_ = step_after_divergence();
    return;
  }
  diverged_from_.reset();
  if (verdict_) not_after_ = verdict_->not_after;
}

// The checkpoint before the newest, or the only one; after a further divergence, the one before that.
std::optional<std::int64_t> Supervisor::step_after_divergence() {
  const bool again = diverged_from_.has_value();
  const auto bound = again ? diverged_from_ : history_.newest_step();
  if (!bound) return std::nullopt;
  diverged_from_ = history_.newest_step_before(*bound).value_or(again ? 0 : *bound);
  return diverged_from_;
}

// Where the attempt brought a checkpoint, the next can be expected to: it starts at once.
double Supervisor::pause_after(int without_progress) const {
  if (without_progress == 0) return 0;
  return std::min(options_.longest_pause_seconds, std::ldexp(options_.first_pause_seconds, without_progress - 1));
}

bool Supervisor::pause(double seconds) {
  for (const double end = monotonic_seconds() + seconds; monotonic_seconds() < end;) {
    const auto signal = signals_->next(std::clamp(end - monotonic_seconds(), 0.001, 0.25));
    cluster_->tend();
    desk_->look(monotonic_seconds());
    if (desk_->stop()) {
      line_.note(desk_->take_stop(attempt_number_));
      return false;
    }
    if (signal && asks_to_stop(*signal)) {
      note_signal(*signal);
      return false;
    }
  }
  return true;
}

Supervisor::Room Supervisor::wait_for_room(std::int64_t bytes) {
  const auto say = [this](const char* event, const std::string& sentence) {
    line_.note(sentence);
    history_.event(event, attempt_number_, history_.newest_step(), sentence);
  };
  const auto why = why_no_room(run_.root, bytes);
  if (why.empty()) return Room::there;
  say("disk_full", fmt::format("{}: waiting for room, {} at most", why, duration_text(options_.full_disk_seconds)));
  for (const double began = monotonic_seconds(); monotonic_seconds() < began + options_.full_disk_seconds;) {
    if (!pause(1)) return Room::asked_to_stop;
    if (!why_no_room(run_.root, bytes).empty()) continue;
    say("disk_has_room", fmt::format("there is room again, {:.0f} s later", monotonic_seconds() - began));
    return Room::came;
  }
  say("disk_full", fmt::format("{}, after {} too", why, duration_text(options_.full_disk_seconds)));
  return Room::never;
}

int Supervisor::finish(const Outcome& outcome) {
  if (metrics_.newest()) line_.finish(*metrics_.newest());
  const auto newest = history_.newest_step();
  if (outcome.complete()) {
    const auto sentence = fmt::format("done: {} in {}", step_text(newest),
                                      duration_text(monotonic_seconds() - started_at_));
    line_.note(sentence);
    history_.event("done", attempt_number_, newest, sentence);
    desk_->close(false, newest, "the run is done");
    return 0;
  }
  if (outcome.is_final()) {
    history_.event("failed", attempt_number_, newest, outcome.reason);
    desk_->close(false, newest, fmt::format("the run failed: {}", outcome.reason));
    tell("{} (trying again can't help)", outcome.reason);
    return outcome.code;
  }
  const auto sentence = fmt::format("stopped ({}); the run goes on from {} when it is started again", outcome.reason,
                                    step_text(newest));
  history_.event("stopped", attempt_number_, newest, sentence);
  const auto leaving = why_leaving();
  desk_->close(true, newest, sentence);
  tell("{}", sentence);
  hand_over(leaving);
  return stopped_code;
}

// SLURM's own TERM may reach the ranks alone; they leave then as if asked.
Leaving Supervisor::why_leaving() {
  desk_->look(monotonic_seconds() + 1);
  if (desk_->stop() || desk_->stop_after()) return Leaving::on_request;
  if (first_signal_ == SIGUSR1) return Leaving::at_warning;
  return first_signal_ == 0 || first_signal_ == SIGTERM ? Leaving::at_signal : Leaving::on_request;
}

// The process may be killed as soon as the job is requeued: what must be written is written before.
bool Supervisor::hand_over(Leaving leaving) {
  constexpr const char* after_failure = "handed_over_after_failure";
  const auto failures = history_.count_events(after_failure);
  if (leaving == Leaving::after_failure) history_.event(after_failure, attempt_number_, history_.newest_step(), "");
  const auto handover = cluster_->hand_over(leaving, failures);
  if (handover.words.empty()) return handover.again;
  history_.event(handover.again ? "requeued" : "not_requeued", attempt_number_, history_.newest_step(), handover.words);
  tell("{}", handover.words);
  return handover.again;
}

int Supervisor::give_up(const Outcome& outcome, const std::string& why, bool may_hand_over) {
  auto sentence = fmt::format("giving up, for {}", why);
  if (outcome.reason != why) sentence += fmt::format("; the last attempt: {}", outcome.reason);
  if (attempt_number_ > 0) sentence += fmt::format("; its logs are in {}", run_.log_folder(attempt_number_).string());
  history_.event("gave_up", attempt_number_, history_.newest_step(), sentence);
  desk_->close(false, history_.newest_step(), sentence);
  line_.note("");
  tell("{}", sentence);
  const bool again = may_hand_over && hand_over(Leaving::after_failure);
  return again ? stopped_code : outcome.code;
}

}  // namespace smlp
