// What notices that the launcher's own node is lost. Batch jobs are submitted with --no-kill so that a run goes on
// inside its allocation when a node dies; but when the node of the batch script dies, SLURM (22.05) then neither ends
// nor requeues the job: the allocation would stay, empty, until its time limit. So a small step on another node
// (`smlp guard`) looks whether the launcher's pulse goes on, and when it does not and SLURM calls the launcher's node
// down, it has the job requeued. It survives the death of the srun that started it.
//
// BatchGuard is the launcher's side, owned by AllocatedNodes: it writes the pulse and keeps the step alive.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/run_directory.h"
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

// Where this process runs, as SLURM names the node.
std::string slurm_node_name();

}  // namespace smlp
