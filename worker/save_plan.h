// When a save of which tier is due: by steps, by time, or, with checkpoint.auto, by intervals that follow what saves cost
// and how often the run fails (worker/save_interval.h), kept in RUN/save_intervals.json. Rank 0's answers count: they go
// to all ranks with the step's flags.
#pragma once

#include <array>
#include <functional>

#include "core/job_config.h"
#include "core/run_directory.h"
#include "worker/stopwatch.h"
#include "worker/save_interval.h"

namespace smlp {

// The job as it is in a build that can't write checkpoints: none is ever due, and the nodes keep none.
JobConfig::Checkpoint no_saves(JobConfig::Checkpoint job);

class SavePlan {
 public:
  SavePlan(const JobConfig::Checkpoint& job, const RunDirectory& run);

  bool due(Tier tier, std::int64_t step) const;
  // The run goes on from there. What only the nodes have is due for the shared directory at once.
  void start(std::int64_t step, Tier from);
  void begun(Tier tier, std::int64_t step, double stall_seconds);
  void step(double seconds) { intervals_.step(seconds); }  // took so long, stalls left out
  void over(Tier tier) { intervals_.over(tier); }          // published or failed
  std::int64_t last(Tier tier) const { return of(tier).step; }  // newest step that has one, or that one was begun for; -1: none

  // Rank 0: chooses the intervals anew; those that moved are told. Nothing without checkpoint.auto.
  using Moved = std::function<void(Tier, double seconds, const std::string& sentence)>;
  void choose(double seconds_up, const Moved& moved);

 private:
  struct Last {
    std::int64_t step = -1;
    Stopwatch since;
  };
  const Last& of(Tier tier) const { return last_[static_cast<std::size_t>(tier)]; }

  JobConfig::Checkpoint job_;
  RunDirectory run_;
  std::int64_t failures_ = 0;
  SaveIntervals intervals_;
  std::array<Last, tier_count> last_;
};

}  // namespace smlp
