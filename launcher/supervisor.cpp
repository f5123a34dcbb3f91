#include "launcher/supervisor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <csignal>

#include "core/clock.h"
#include "core/files.h"
#include "core/tell.h"
#include "launcher/batch_guard.h"
#include "launcher/processes.h"

namespace smlp {

namespace {

constexpr int attempts_without_progress = 3;

}  // namespace

Supervisor::Supervisor(RunDirectory run, JobConfig job, SupervisorOptions options)
    : run_{std::filesystem::absolute(run.root)},
      job_(std::move(job)),
      options_(std::move(options)),
      history_(run_),
      cluster_(make_cluster(job_, run_, options_.worker)),
      line_(job_, options_.out),
      metrics_(run_.metrics()),
      choice_(run_),
      ledger_(run_) {}

std::string Supervisor::step_text(std::optional<std::int64_t> step) {
  return step > 0 ? fmt::format("checkpoint {}", *step) : std::string("the start");
}

// The ranks look for themselves, and nodes may hold saves that came after the last that was told.
std::string Supervisor::or_else_text(std::optional<std::int64_t> step) const {
  const bool nodes = !job_.checkpoint.local_dir.empty() && !not_after_;
  return fmt::format("{}{}", step > 0 ? ", or from one before it if that does not hold" : "",
                     nodes ? ", or from a later save that the nodes hold" : "");
}

int Supervisor::run() {
  signals_.emplace();
  signal(SIGPIPE, SIG_IGN);  // whoever reads our lines may leave; the run stays
  adopt_orphans();
  started_at_ = monotonic_seconds();
  ledger_.launcher_began(unix_seconds());
  desk_.emplace(run_, history_);
  recall_bound();
  progress_ = AttemptProgress(history_.newest_step());
  progress_.rewind_to(not_after_);
  if (wait_for_room(0) == Room::asked_to_stop) return asked_to_stop("before an attempt");
  for (;;) {
    while (!choose_layout()) {
      // A node without room for checkpoints is unfit.
      const auto room = stop_requests_ > 0 ? Room::asked_to_stop : wait_for_room(2 * history_.bytes_of_newest());
      if (room == Room::asked_to_stop) return asked_to_stop("before an attempt");
      if (room != Room::came) return give_up({static_cast<int>(ExitCode::unavailable), "nodes", why_not_}, why_not_);
    }
    if (stop_requests_ > 0) return asked_to_stop("before an attempt");
    if (const auto code = after_attempt(run_attempt(history_.begin_attempt()))) return *code;
  }
}

std::optional<int> Supervisor::after_attempt(const Outcome& outcome) {
  has_trained_ = has_trained_ || metrics_.newest();
  if (outcome.complete() || (outcome.is_final() && !may_pass(outcome)) || outcome.code == stopped_code || stop_requests_ > 0) {
    return finish(outcome);
  }
  desk_->look_at_once();
  if (desk_->stop()) {
    return finish({outcome.code, outcome.cause,
                   fmt::format("{}; attempt {} had ended: {}", desk_->take_stop(attempt_number_), attempt_number_,
                               outcome.reason)});
  }
  if (verdict_ && verdict_->stop) return give_up(outcome, "the ranks ask for a decision", false);
  const auto newest = newest_save();
  const bool has_chosen = !not_after_;  // where it has not, what it would have given up lies there still
  const bool ends_in_rewind = verdict_ || outcome.cause == "diverged";
  const bool saved = has_chosen && progress_.of_attempt(choice_.begun_at(), newest, ends_in_rewind);
  const auto room = wait_for_room(outcome.cause == "io" ? history_.bytes_of_newest() : 0);
  if (room == Room::asked_to_stop) return asked_to_stop("between two attempts");
  if (saved || (verdict_ && verdict_->budgeted)) without_progress_ = 0;
  else if (room != Room::came) ++without_progress_;
  if (without_progress_ >= attempts_without_progress) {
    return give_up(outcome, fmt::format("{} attempts in a row brought no new checkpoint", without_progress_));
  }
  if (options_.max_restarts >= 0 && restarts_ >= options_.max_restarts) {
    return give_up(outcome, fmt::format("no more than {} restarts were allowed", options_.max_restarts), false);
  }
  ++restarts_;
  if (saved) diverged_from_.reset();  // the next divergence is another one
  bound_restart(outcome.cause, choice_.step());
  progress_.rewind_to(not_after_);
  const double wait = pause_between();
  const auto from = not_after_ ? not_after_ : newest;
  const auto sentence = fmt::format("attempt {} ended: {}. {}; attempt {} starts from {} {}", attempt_number_, outcome.reason,
                                    cost_text(), attempt_number_ + 1, step_text(from),
                                    wait > 0 ? fmt::format("in {:.1f} s", wait) : "at once") +
                        or_else_text(from);
  line_.note(sentence);
  history_.event("restart", attempt_number_, from, sentence);
  if (!pause(wait)) return asked_to_stop("between two attempts");
  return std::nullopt;
}

int Supervisor::asked_to_stop(const char* when) {
  return finish({stopped_code, "stopped", fmt::format("asked to stop {}", when)});
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

// What an attempt of this start has had, a GPU or its memory, another may have again, elsewhere or when what went before is gone.
bool Supervisor::may_pass(const Outcome& outcome) const {
  return outcome.code == static_cast<int>(ExitCode::unavailable) && has_trained_;
}

// False for one that only repeats what is known: the TERM of a preemption or a time limit after its warning, or the second
// of two that are sent at once: coreutils' `timeout` signals a program and its group, systemd sends TERM and HUP.
bool Supervisor::note_signal(int signal) {
  history_.event("signal", attempt_number_, {}, fmt::format("{} to the launcher", signal_text(signal)));
  if (first_signal_ == SIGUSR1 && signal == SIGTERM) return false;
  const double now = monotonic_seconds();
  if (first_signal_ != 0 && now - first_signal_at_ < options_.one_request_seconds) return false;
  if (first_signal_ == 0) {
    first_signal_ = signal;
    first_signal_at_ = now;
  }
  ++stop_requests_;
  return true;
}

std::string Supervisor::cost_text() const {
  const auto from = (not_after_ ? not_after_ : newest_save()).value_or(0);
  const auto last = metrics_.newest() ? metrics_.newest()->step : from;
  if (last <= from) return "No step is lost";
  return fmt::format("{} steps are done again ({} to {}, {:.1f} s of work)", last - from, from + 1, last,
                     metrics_.seconds_since(from));
}

// Of metrics, which may come late, or of a save.
std::optional<std::int64_t> Supervisor::last_step() const {
  const auto told = metrics_.newest() ? std::optional(metrics_.newest()->step) : std::nullopt;
  return std::max(told, newest_save());
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
  if (kind_of_path(run_.events()) == PathKind::absent) return;  // where it can't be looked at, nothing is guessed
  const auto chosen = history_.last_to_choose();
  if (!chosen) return;
  verdict_ = read_verdict(run_.verdict(*chosen));
  bound_restart(history_.cause_of(*chosen), history_.chosen_by(*chosen));
}

// From where the next attempt may go on, after one that ended for this cause and had begun with the checkpoint of this step.
void Supervisor::bound_restart(const std::string& cause, std::optional<std::int64_t> begun_with) {
  if (cause == "diverged" && !verdict_) {
    not_after_ = step_after_divergence(std::max(begun_with, newest_save()));
    return;
  }
  diverged_from_.reset();
  if (verdict_) not_after_ = verdict_->not_after;
}

// The checkpoint before the newest save, or the only one; after a further divergence, the one before that. A save on the
// nodes with none published before it is given up alone: they may hold one before it.
std::optional<std::int64_t> Supervisor::step_after_divergence(std::optional<std::int64_t> newest) {
  const bool again = diverged_from_.has_value();
  const auto bound = again ? diverged_from_ : newest;
  if (!bound) return std::nullopt;
  const bool on_nodes = newest > history_.newest_step();
  diverged_from_ = history_.newest_step_before(*bound).value_or(again ? 0 : on_nodes ? *bound - 1 : *bound);
  return diverged_from_;
}

// Where the attempt brought a checkpoint, the next can be expected to: it starts at once.
double Supervisor::pause_between() const {
  return without_progress_ == 0 ? 0 : std::ldexp(options_.first_pause_seconds, without_progress_ - 1);
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
    desk_->close(RunEnd::by_itself, newest, "the run is done");
    return 0;
  }
  if (outcome.is_final()) {
    history_.event("failed", attempt_number_, newest, outcome.reason);
    desk_->close(RunEnd::by_itself, newest, fmt::format("the run failed: {}", outcome.reason));
    tell("{} (trying again can't help)", outcome.reason);
    return outcome.code;
  }
  const auto sentence = fmt::format("stopped ({}); the run goes on from {} when it is started again", outcome.reason,
                                    step_text(newest));
  history_.event("stopped", attempt_number_, newest, sentence);
  const auto leaving = outcome.superseded ? Leaving::on_request : why_leaving();  // not to come back, either
  const bool asked = leaving == Leaving::on_request && !outcome.superseded;
  const auto by_request = outcome.code == stopped_code ? RunEnd::as_asked : RunEnd::unsaved;
  desk_->close(asked ? by_request : RunEnd::interrupted, newest, sentence);
  tell("{}", sentence);
  hand_over(leaving);
  return stopped_code;
}

// SLURM's own TERM may reach the ranks alone; they leave then as if asked.
Leaving Supervisor::why_leaving() {
  desk_->look_at_once();
  if (desk_->stop() || desk_->stop_after(last_step())) return Leaving::on_request;
  const bool by_hand = first_signal_ != 0 && first_signal_ != SIGTERM && first_signal_ != SIGUSR1;
  return by_hand ? Leaving::on_request : Leaving::interrupted;
}

// The process may be killed as soon as the job is requeued: what must be written is written before.
bool Supervisor::hand_over(Leaving leaving) {
  const auto job = cluster_->batch_job();
  const auto failures = history_.count_events(after_failure_event, job);
  if (leaving == Leaving::after_failure && !job.empty()) {
    history_.event(after_failure_event, attempt_number_, history_.newest_step(), job);
  }
  const auto handover = cluster_->hand_over(leaving, failures);
  if (handover.words.empty()) return handover.again;
  history_.event(handover.again ? "requeued" : "not_requeued", attempt_number_, history_.newest_step(), handover.words);
  tell("{}", handover.words);
  return handover.again;
}

int Supervisor::give_up(const Outcome& outcome, const std::string& why, bool may_hand_over) {
  auto sentence = fmt::format("giving up, for {}", why);
  if (outcome.reason != why) sentence += fmt::format("; the last attempt: {}", outcome.reason);
  const auto logs = run_.log_folder(attempt_number_);
  if (std::error_code unknown; attempt_number_ > 0 && std::filesystem::exists(logs, unknown)) {
    sentence += fmt::format("; its logs are in {}", logs.string());
  }
  history_.event("gave_up", attempt_number_, history_.newest_step(), sentence);
  desk_->close(may_hand_over ? RunEnd::interrupted : RunEnd::by_itself, history_.newest_step(), sentence);
  line_.note("");
  tell("{}", sentence);
  const bool again = may_hand_over && hand_over(Leaving::after_failure);
  return again ? stopped_code : outcome.code;
}

}  // namespace smlp
