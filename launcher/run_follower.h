// A run as its files show it while it goes on, for one who waits for its next step: metrics.jsonl as it grows, and the
// heartbeats. Knows the run by its directory alone; owned by whoever drills or judges a drill.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "core/json_lines.h"
#include "core/run_directory.h"
#include "launcher/heartbeat_watch.h"

namespace smlp {

struct StepDone {
  int attempt = 0;
  std::int64_t step = 0;
  double loss = 0;
  double time = 0;               // seconds since 1970
  std::int64_t checkpoint = 0;   // step of the newest published one then; 0: none
};

class RunFollower {
 public:
  explicit RunFollower(RunDirectory run) : run_(std::move(run)), metrics_(run_.metrics()) {}

  void read();                                             // what is new
  const std::vector<StepDone>& steps() const { return steps_; }  // all so far, as they were done
  std::int64_t furthest() const { return furthest_; }      // highest step of any attempt; 0: none
  double step_seconds() const;                             // of the newest steps, about; 0: not known yet

  std::optional<Beat> beat(int rank) const;                // as its file has it now
  std::optional<pid_t> launcher() const;                   // who holds the run's lock, on this host
  std::vector<std::int64_t> checkpoints() const;           // steps of the published ones, ascending
  std::filesystem::path shard(std::int64_t step, int rank) const { return run_.shard(step, rank); }  // a rank's file of one
  bool saving() const;                                     // a checkpoint is being written

 private:
  RunDirectory run_;
  JsonTail metrics_;
  std::vector<StepDone> steps_;
  std::int64_t furthest_ = 0;
};

}  // namespace smlp
