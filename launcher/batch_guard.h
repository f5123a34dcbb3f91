// What notices that the launcher's own node is lost. Batch jobs are submitted with --no-kill so that a run goes on
// inside its allocation when a node dies; but when the node of the batch script dies, SLURM (22.05) then neither ends
// nor requeues the job: the allocation would stay, empty, until its time limit. So a small step on another node
// (`smlp guard`) looks whether the launcher's pulse goes on, and when it does not and SLURM calls the launcher's node
// down, it has the job requeued. It survives the death of the srun that started it.
//
// BatchGuard is the launcher's side, owned by AllocatedNodes: it writes the pulse and keeps the step alive.
//
// And what notices that the launcher alone is killed, as the kernel may for want of memory: with the process that has taken
// the batch script's place the job would end, FAILED. So the launcher makes way (guard_this_launcher): it goes on as a child,
// and that process becomes `smlp guard --launcher`, which is small, passes signals on, ends as the launcher does, and has the
// job requeued when a signal has ended it.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "core/run_directory.h"
#include "launcher/cluster.h"
#include "slurm/allocation.h"
#include "slurm/controller.h"

namespace smlp {

constexpr const char* guard_step_name = "smlp-guard";

class BatchGuard {
 public:
  explicit BatchGuard(RunDirectory run) : run_(std::move(run)) {}
  ~BatchGuard();  // ends the step
  BatchGuard(const BatchGuard&) = delete;
  BatchGuard& operator=(const BatchGuard&) = delete;

  // On one of these, the fit ones; where the launcher's is the only one, nobody can watch it.
  void use(const std::vector<std::string>& nodes) { nodes_ = nodes; }
  bool is(pid_t process) const { return step_ != 0 && process == step_; }
  void tend(double now);  // monotonic; often. Never throws: a run goes on without a guard

 private:
  void start();

  RunDirectory run_;
  std::vector<std::string> nodes_;
  pid_t step_ = 0;  // srun
  double pulse_at_ = -1e9, started_at_ = -1e9;
};

struct GuardOptions {
  RunDirectory run;
  std::string node, job_id;  // the launcher's
  double look_seconds = 5, silent_seconds = 20;
};
// The step's side: returns when the job has been requeued, which ends the step too.
void keep_guard(const GuardOptions& options, const Controller& controller);

bool in_the_batch_scripts_place();
// Returns in the launcher, which is another process then, with its signals blocked; and in the same one, with a sentence on
// stderr, where no other can be had. Call it before there are threads or locks.
void guard_this_launcher(const RunDirectory& run, std::int64_t most_requeues);

// SLURM's TERM reaches the launcher by two ways, of which one leads through its guard.
constexpr double two_ways_seconds = 2;

struct LauncherGuardOptions {
  RunDirectory run;
  pid_t launcher = 0;  // a child of ours
  Allocation allocation;
  std::int64_t most_requeues = 0;
};
// The launcher's exit code; 75 where a signal has ended it and the job is requeued, else 128 + signal.
int guard_launcher(const LauncherGuardOptions& options, const Controller& controller);

// An event for each time that a job was handed over after a failure; its detail names the job, for a run may be of many.
constexpr const char* after_failure_event = "handed_over_after_failure";
std::string job_words(const Allocation& allocation);  // "job 4711"

// Has SLURM start the job again, where that is wanted: not when it was cancelled, and after failures so often only.
struct FailureCount {
  std::int64_t earlier = 0, most = 0;  // handovers after a failure
};
Handover hand_over_job(const Controller& controller, const Allocation& allocation, Leaving leaving, FailureCount failures);

}  // namespace smlp
