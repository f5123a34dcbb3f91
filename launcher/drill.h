// Runs a job under the real supervisor while faults strike it one after another: the next has its turn when the run has
// come back from the one before. The run is a child of this process, as a user would have started it; when its launcher
// was killed on purpose it is started again. What the run made of it is judged afterwards: launcher/drill_verdict.h.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/drill_plan.h"
#include "core/run_directory.h"
#include "launcher/run_follower.h"

namespace smlp {

struct FaultResult {
  Fault fault;
  Strike strike{};                   // step: the newest done then
  std::int64_t checkpoint = 0;       // newest published one then; 0: none
  std::int64_t spare = 0;            // the one before that
  std::optional<int> ended_before{}; // attempt ended on purpose so that the fault finds the ranks starting
  std::int64_t last = 0;             // highest step done before the run came back
  std::int64_t first = 0;            // first step done after
  double to_step = 0;                // seconds from the strike to that
  double to_new_step = 0;            // ... to the first step that had not been done before
  std::int64_t lost = 0;             // steps that were done again
  std::int64_t at_most = 0;          // that may be lost            by the verdict
  std::string noticed{};             // in the words of the run's records    by the verdict
};

struct DrillRun {
  std::vector<FaultResult> faults;   // those that struck and that the run came back from
  std::optional<FaultResult> unfinished{};  // the one that struck last, where the drill ended before the run had come back
  std::vector<StepDone> steps;
  std::string problem;               // why the drill ended before its end; empty: it did not
  int exit_code = -1;                // of the run; 128 + signal
  std::vector<std::string> left;     // processes that outlived it
};

struct DrillSettings {
  std::vector<std::string> command;  // starts the run; again after its launcher was killed
  std::filesystem::path output;      // of the run
  RunDirectory run;                  // empty as yet
  std::vector<Fault> faults;
  std::int64_t save_every = 0;       // steps between two saves
  double patience_seconds = 300;     // for each strike, each return, and the end
  std::function<void(const FaultResult&)> told = {};  // as each is over
};

class Drill {
 public:
  explicit Drill(DrillSettings settings);
  DrillRun run();

 private:
  struct GivenUp;
  void start();
  bool attend();  // false once the run has ended
  void wait_until(const std::function<bool()>& condition, const std::string& what);
  void pause(double seconds);
  void one(FaultResult& result);
  void note_checkpoints(FaultResult& result) const;
  void await_moment(FaultResult& result);
  void await_save(FaultResult& result);
  void strike_from_outside(FaultResult& result, FaultKind kind);
  void finish(DrillRun& result);

  DrillSettings settings_;
  DrillFolder folder_;
  RunFollower follower_;
  std::int64_t seen_ = 0;         // steps, of which the ranks know
  bool about_to_strike_ = false;  // the ranks stay where they are, as good as
  pid_t launcher_ = 0;
  bool killed_launcher_ = false;
  std::optional<int> exit_code_;
  double start_seconds_ = 0;  // from the ranks' first sign of life to the first step
};

// Live processes of a run, but this one: "4711: smlp-worker train …".
std::vector<std::string> processes_of_run(const RunDirectory& run);

// Waits for the return of a run from a fault that struck it, fills in what follows from the steps it did. `follower`
// is read by `wait_until`, which throws when it takes too long.
using WaitUntil = std::function<void(const std::function<bool()>& condition, const std::string& what)>;
void follow_return(FaultResult& result, const RunFollower& follower, const WaitUntil& wait_until);

}  // namespace smlp
