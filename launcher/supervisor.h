// Starts the ranks of a run, watches them, and starts them again until the run is done or there is no point:
// docs/architecture.md, the life of one failure. Its whole memory is files (launcher/run_history.h); it knows
// workers by process, exit code and files alone.
//
//   exit code of an attempt        what follows
//   0                              done
//   75                             stopped on request: leave with 75
//   64 65 69 78                    leave with that code: trying again can't help (but 69 once ranks have trained)
//   76                             again, from the checkpoint before the newest
//   70 74 others, signals, hangs   again, from the newest checkpoint
// Ranks that end an attempt over what they have computed may say from where to go on, or that there is no point:
// core/verdict.h.
//
// A run that leaves before it is done is handed over to the cluster, which may have it started again (a SLURM job is
// requeued): after a warning or a signal, unless the job was cancelled, and after failures, within a budget.
//
// Waits longer each time, and gives up after three attempts in a row that published no newer
// checkpoint than any before (but those that a rewind gave up, or that were lost with their nodes), or after `max_restarts`:
// then the code is the last attempt's. While the run's disk is full it starts none, for `full_disk_seconds` at most, and the
// attempt before does not count.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "core/error.h"
#include "core/job_config.h"
#include "core/run_directory.h"
#include "core/verdict.h"
#include "launcher/attempt_progress.h"
#include "launcher/choice_tail.h"
#include "launcher/cluster.h"
#include "launcher/control_desk.h"
#include "launcher/disk_room.h"
#include "launcher/heartbeat_watch.h"
#include "launcher/ledger.h"
#include "launcher/metrics_tail.h"
#include "launcher/outcome.h"
#include "launcher/progress_line.h"
#include "launcher/run_history.h"
#include "launcher/signal_queue.h"

namespace smlp {

struct SupervisorOptions {
  std::filesystem::path worker;                    // the program of a rank
  std::optional<std::filesystem::path> init_from;  // weights for a run without a checkpoint
  std::int64_t max_restarts = -1;                  // -1: as long as there is progress
  double first_pause_seconds = 1;                  // between attempts without progress
  double starter_end_seconds = 10;                 // within which mpirun or srun must end once all its ranks are gone
  double one_request_seconds = 0.1;                // a further signal within this is no second request
  double full_disk_seconds = full_disk_patience_seconds;
  WatchLimits watch;
  std::FILE* out = stdout;
};

class Supervisor {
 public:
  // The caller holds the run's lock (launcher/run_lock.h); job.toml lies in the run directory.
  Supervisor(RunDirectory run, JobConfig job, SupervisorOptions options);
  // An exit code; a sentence on stderr where it isn't 0. Takes SIGINT, SIGTERM, SIGHUP and SIGUSR1 while it runs: the
  // first lets the ranks save and leave, the second ends them at once (but the TERM that follows SLURM's warning by
  // USR1 only repeats it); 75 either way.
  int run();

 private:
  struct Attempt;
  static constexpr int stopped_code = static_cast<int>(ExitCode::call_again);
  static std::string step_text(std::optional<std::int64_t> step);  // "checkpoint 120", "the start"
  std::string or_else_text(std::optional<std::int64_t> step) const;  // from where else ranks may go on than from that step
  std::string before_the_choice(std::optional<std::int64_t> newest) const;

  bool choose_layout();  // false: none, and why_not_ says why
  Outcome run_attempt(int number);
  std::optional<int> after_attempt(const Outcome& outcome);  // the exit code of run(); none: another attempt
  int asked_to_stop(const char* when);
  Outcome start_or_why_not(Attempt& attempt);
  void start(Attempt& attempt);
  void watch(Attempt& attempt);
  bool note_signal(int signal);
  void take_signals(Attempt& attempt);
  void take_signal(Attempt& attempt, int signal);
  void ask_to_leave(Attempt& attempt);
  void hear_requests(Attempt& attempt, double now);
  void watch_heartbeats(Attempt& attempt, double now);
  void show_choice();
  void show_progress(double now);
  void show_targets();
  void end_now(Attempt& attempt);
  std::set<pid_t> orphans(const Attempt& attempt) const;
  void clear_processes(Attempt& attempt);
  Outcome conclude(Attempt& attempt);
  void record(const Attempt& attempt, const Outcome& outcome);

  int finish(const Outcome& outcome);
  bool may_pass(const Outcome& outcome) const;
  int give_up(const Outcome& outcome, const std::string& why, bool may_hand_over = true);
  Leaving why_leaving();
  bool hand_over(Leaving leaving);
  std::optional<std::int64_t> step_after_divergence(std::optional<std::int64_t> newest);
  void recall_bound();
  void bound_restart(const std::string& cause, std::optional<std::int64_t> begun_with);
  double pause_between() const;
  bool pause(double seconds);  // false: asked to stop meanwhile
  enum class Room { there, came, never, asked_to_stop };
  Room wait_for_room(std::int64_t bytes);
  std::string cost_text() const;
  std::optional<std::int64_t> last_step() const;    // that is known to be done
  std::optional<std::int64_t> newest_save() const;  // published, or of this attempt on the nodes

  RunDirectory run_;
  JobConfig job_;
  SupervisorOptions options_;
  RunHistory history_;
  std::unique_ptr<Cluster> cluster_;
  Layout layout_;
  std::string why_not_;
  ProgressLine line_;
  MetricsTail metrics_;
  ChoiceTail choice_;
  std::optional<SignalQueue> signals_;
  Ledger ledger_;
  std::optional<ControlDesk> desk_;

  int stop_requests_ = 0, first_signal_ = 0;
  bool has_trained_ = false;  // an attempt of this start has done a step
  double first_signal_at_ = 0;
  int attempt_number_ = 0, without_progress_ = 0;  // attempts in a row
  std::int64_t restarts_ = 0;
  AttemptProgress progress_;
  double started_at_ = 0;
  std::optional<Verdict> verdict_;               // of the last attempt
  std::optional<std::int64_t> not_after_;        // until an attempt has chosen its checkpoint
  std::optional<std::int64_t> diverged_from_;    // bound of the last restart after divergence; none once something is saved
  std::optional<double> restart_began_;          // an attempt ended at; until the next does its first step
  std::filesystem::file_time_type targets_seen_{};
};

}  // namespace smlp
