// How a run stands, from the files of its directory alone: dead or alive, from any host that sees them, while others
// write. What can't be known or read is absent. States:
//   waiting   submitted or requeued and not started since (launcher/queue_look.h asks SLURM whether it still can be); or the
//             launcher is there, between two attempts
//   running   an attempt is under way, its start and evaluations included
//   saving    the same, while the ranks wait for a save, or one was asked for and is not published yet
//   stopping  asked to leave, by a signal or a request, and not gone yet
//   stopped   left on request; a run never started
//   done      all steps are done
//   failed    the launcher gave up, or trying again can't help
//   dead      the launcher is gone without a word
#pragma once

#include <sys/types.h>

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/control_folder.h"
#include "core/job_config.h"
#include "core/goodput.h"
#include "core/run_directory.h"

namespace smlp {

struct RankPlace {
  int rank = 0;
  std::int64_t step = 0, progress = 0;  // progress: the same on all ranks at the same place
  std::string section, host;
  pid_t pid = 0;
  double seconds_ago = 0;  // when it last said so
};

struct AttemptEnd {
  int attempt = 0;
  std::string cause, reason;
};

// Of an array whose tasks train side by side, each in a folder task-N of the run directory.
struct TaskState {
  std::int64_t number = 0;
  std::string state;
};

struct BatchJob {
  std::string id, state, reason;  // "4711", "pending", "Priority"
};

struct RunStatus {
  std::string name, state, words;  // words: why it ended, if it did
  bool queued = false;             // by what its files say, a batch job is to start it, or go on with it
  std::optional<BatchJob> job;     // the one, by launcher/queue_look.h
  std::vector<TaskState> tasks;    // by number; the state above is then that of the one farthest from its end
  std::optional<std::int64_t> step, steps, checkpoint_step;
  std::optional<double> loss, validation_loss, tokens_per_second, flops_share, expert_balance, checkpoint_age,
      seconds_left;
  std::int64_t attempts = 0, restarts = 0;
  std::vector<AttemptEnd> ends;  // of attempts that a restart followed, or that ended the run; oldest first
  std::optional<Goodput> goodput;  // up to now while the run is live
  std::vector<RankPlace> ranks;
  std::optional<int> slowest;  // the rank that is behind the others; none while all are at the same place
  std::vector<Request> requests;  // not answered yet, or waiting for their step
  std::string holder;             // "process 4711 on node1" of the launcher, alive or dead
  std::string metrics_address;
  std::filesystem::path logs;
};

bool is_run(const RunDirectory& run);   // the folder is one
void expect_run(const RunDirectory& run);  // throws Error(configuration) where it is none
bool is_live(const RunDirectory& run);  // a launcher holds it
JobConfig job_of(const RunDirectory& run);  // as it was resolved; throws, also where a pipe is in its place
std::vector<RankPlace> read_places(const RunDirectory& run);  // of the newest attempt
RunStatus read_status(const RunDirectory& run);
// Of the task that is farthest from its end; `more_wait`: there are tasks that have not begun.
std::string state_of_tasks(const std::vector<TaskState>& tasks, bool more_wait);
nlohmann::json to_json(const RunStatus& status);

}  // namespace smlp
