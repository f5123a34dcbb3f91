// SLURM's own programs (sbatch, scontrol, sinfo, srun --mpi=list), asked without a shell and always within a time
// limit. Nothing throws because SLURM is away, slow or of another mind: that is an answer too, in words for the log.
//
// A call waits for its answer: `tries` times `seconds` at most, and the pauses between; a word from SLURM ends it, only
// silence is asked again. submit() is tried once, within `submit_seconds`. Programs are ended with all their children
// when their time is up. Ids and node names that are none are answered as unknown, without asking. Holds no state
// between calls: use one for as long as you like, from one thread at a time.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlp {

enum class JobState {
  pending, running, completing, completed, cancelled, preempted, requeued, timeout, failed, unknown
};
enum class NodeState { up, drained, down, not_responding, unknown };
std::string_view name_of(JobState state);

struct JobAnswer {
  JobState state = JobState::unknown;
  std::string words;  // what SLURM said, or why it said nothing
  std::string reason = "";  // of a job that waits, why: "Priority"
  bool gone = false;  // SLURM knows no such job (any more)
  bool silent() const { return state == JobState::unknown && !gone; }  // nobody answered
};

struct NodeAnswer {
  std::string name;
  NodeState state = NodeState::unknown;
  std::string words;  // "DOWN*+DRAIN: Not responding"
};

struct RequeueAnswer {
  bool done = false;
  std::string words;  // why not
};

struct LaunchTypes {
  bool answered = false;
  std::vector<std::string> names;  // "none", "pmi2", "pmix", "pmix_v4": for srun --mpi=
  std::string words;               // why there is no answer
  bool has_pmix() const;
};

struct Submission {
  std::optional<std::string> job_id;
  bool refused = false;  // sbatch said no; false without an id: it said nothing
  std::string words;     // sbatch's own
};

struct ControllerOptions {
  double seconds = 10;         // a try
  double submit_seconds = 60;  // sbatch, which waits for a busy controller
  int tries = 3;
  double pause_seconds = 1;    // between them
};

// `wanted` as sbatch takes it: several partitions are separated by commas, and all of them must be known.
bool holds_partitions(const std::vector<std::string>& known, const std::string& wanted);

class Controller {
 public:
  explicit Controller(ControllerOptions options = {}) : options_(options) {}

  static bool present();  // sbatch is on PATH

  // From the moment on at which a job gets a signal for it:
  //   cancelled   by scancel
  //   preempted   a job of higher priority takes its place, now or after the grace time
  //   requeued    it ends here and will start again, without another word: preempted, a node lost, scontrol requeue
  //   timeout     its time limit is over; at the warning before that (--signal) it is still `running`
  //   completing  it ends, and SLURM does not say why: only where another job is asked for, not the one we run in
  // `unknown`: SLURM does not know the job, or did not answer.
  JobAnswer state_of_job(const std::string& job_id) const;

  // Kills the job's steps at once and its batch script a moment later: save first. After `done` expect SIGTERM.
  RequeueAnswer requeue(const std::string& job_id) const;

  // In the order of the names. `up`: it takes work, or goes on with the work it has (draining included).
  std::vector<NodeAnswer> states_of_nodes(const std::vector<std::string>& names) const;

  LaunchTypes launch_types() const;

  std::optional<std::vector<std::string>> partitions() const;  // nullopt: unanswered

  // sbatch ARGUMENTS SCRIPT. SBATCH_… variables that speak of an option which the script or the arguments set are
  // left out, and SLURM_… ones of an allocation around us: sbatch would prefer them to the script.
  Submission submit(const std::string& script_path, const std::vector<std::string>& arguments = {}) const;

 private:
  ControllerOptions options_;
};

}  // namespace smlp
