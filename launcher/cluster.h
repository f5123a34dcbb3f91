// Where the ranks of a run may be and how they are started there: this host (launcher/this_host.h), or the nodes of a
// SLURM allocation (launcher/allocated_nodes.h). Owned by the Supervisor, which knows no other difference.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cores.h"
#include "core/job_config.h"
#include "core/run_directory.h"
#include "launcher/processes.h"

namespace smlp {

// Whether every rank has cores of its own; the rank takes them itself (core/cores.h), on its node.
struct Binding {
  bool bound = false;
  std::string words{};  // a sentence: how, or why not
};

struct NodeCores {
  std::string node;
  std::vector<Core> cores;  // empty: not known
  bool ours_alone = false;
};

// Of one attempt.
struct Layout {
  std::int64_t ranks = 1, threads = 1, expert_ranks = 1, ranks_per_node = 1;
  std::vector<std::string> nodes{};  // in the order of ranks; empty: this host
  std::string starter = "mpirun";    // the program that starts the ranks
  std::vector<std::vector<Core>> cores{};  // of each node, where they are known
  Binding binding{};
};
std::string text_of(const Layout& layout);  // "3 ranks on n[1-2,4]"

// By cluster.device, the build and train.precision; whether a node has any is its own to say.
bool may_use_gpus(const JobConfig& job);

// All nodes of a layout, or none: ranks that are bound on some nodes only would wait for the others.
Binding choose_binding(const JobConfig& job, std::int64_t ranks_per_node, const std::vector<NodeCores>& nodes);

struct Choice {
  std::optional<Layout> layout;
  std::vector<std::string> notes;  // sentences for the log: nodes left out and why
  std::string why_not;             // where there is no layout
};

// Why a run leaves before it is done; `interrupted`: by a warning or a signal of the scheduler's.
enum class Leaving { on_request, interrupted, after_failure };

struct Handover {
  bool again = false;  // the job will be started again by itself
  std::string words;   // why, or why not; may be empty
};

class Cluster {
 public:
  virtual ~Cluster() = default;
  // Where the next attempt goes, judged now; may take as long as a probe of the nodes may.
  virtual Choice choose() = 0;
  // What starts `program` on every rank.
  virtual ProcessStart start(const Layout& layout, const std::vector<std::string>& program) = 0;
  virtual void attempt_over() {}  // no process of it is left here
  // Looks after what runs beside an attempt; called often, also between attempts.
  virtual void tend() {}
  virtual bool keeps(pid_t) const { return false; }  // a child of ours that is of no attempt
  // SIGKILL to what the attempt left on other hosts. A sentence when something may still be there after `seconds`.
  virtual std::string end_elsewhere(double seconds) = 0;
  virtual std::string batch_job() const { return ""; }  // "job 4711" where ranks are in one; the same after a requeue
  // Has the job started again later, where there is somebody to do that: after this call the process may be killed.
  // `failures`: earlier handovers of this job after a failure.
  virtual Handover hand_over(Leaving leaving, std::int64_t failures) = 0;
};

bool in_batch_job();   // of SLURM, as its script
bool in_allocation();  // of SLURM, anywhere

// By cluster.launcher and the environment. `worker`: the program of a rank.
std::unique_ptr<Cluster> make_cluster(const JobConfig& job, const RunDirectory& run, const std::filesystem::path& worker);

}  // namespace smlp
