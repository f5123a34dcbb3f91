// What SLURM says of a run that waits in its queue: the files of a run directory can't tell that the job was cancelled there.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/run_directory.h"
#include "launcher/run_status.h"
#include "slurm/controller.h"

namespace smlp {

// The jobs that `submit` gave to SLURM for this run, newest first. Those of an array's task stand in the folder above it.
std::vector<std::string> submitted_jobs(const RunDirectory& run);

class QueueLook {
 public:
  // How a run stands (read_status); of one that waits for a batch job also for which one, and why, or that none of its jobs
  // will come, which ends the waiting. Where SLURM is not installed, or says nothing within some seconds, it goes on waiting,
  // for the newest. An answer holds for ten seconds: call it as often as you like, with the same run.
  RunStatus status_of(const RunDirectory& run);

 private:
  void complete(const RunDirectory& run, RunStatus& status);
  void ask(const std::vector<std::string>& jobs);

  std::map<std::string, JobAnswer> answers_;
  double asked_at_ = -1e9;
};

}  // namespace smlp
