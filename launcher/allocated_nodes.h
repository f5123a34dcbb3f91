// Ranks on the nodes of a SLURM allocation, from the batch script's place: the supervisor stays there over all attempts.
// Before each attempt every node is probed with a short step (launcher/preflight.h judges); those that do not answer
// are left out, spare ones take their place, or fewer nodes go on (cluster.min_nodes).
//
// Ranks are started by `srun --mpi=pmix` where SLURM has that, else by mpirun, which finds the allocation by itself.
#pragma once

#include <map>

#include "core/program.h"
#include "launcher/batch_guard.h"
#include "launcher/cluster.h"
#include "launcher/mpi_launch.h"
#include "slurm/allocation.h"
#include "slurm/controller.h"

namespace smlp {

// Ranks fill these nodes one after another.
Layout layout_on(const JobConfig& job, const std::vector<std::string>& nodes, std::int64_t ranks_per_node);
// "srun" or "mpirun"; none where SLURM would have to say, and does not.
std::optional<std::string> chosen_starter(const JobConfig& job, const Controller& controller);

class AllocatedNodes final : public Cluster {
 public:
  AllocatedNodes(const JobConfig& job, const RunDirectory& run, const std::filesystem::path& worker,
                 Allocation allocation);
  Choice choose() override;
  ProcessStart start(const Layout& layout, const std::vector<std::string>& program) override;
  std::string end_elsewhere(double seconds) override;
  void tend() override;
  bool keeps(pid_t child) const override { return guard_.is(child); }
  std::string batch_job() const override;
  Handover hand_over(Leaving leaving, std::int64_t failures) override;

 private:
  std::vector<std::string> answering(std::vector<std::string>& notes);
  Layout layout_of(const std::vector<std::string>& nodes) const;
  CoreCount fewest_cores(const Layout& layout) const;
  ProgramAnswer try_exchange(const std::vector<std::string>& nodes);
  void leave_out_slow_links(std::vector<std::string>& nodes, std::vector<std::string>& notes);
  void pass_over_earlier_steps();

  JobConfig job_;
  RunDirectory run_;
  std::filesystem::path worker_;
  Allocation allocation_;
  Controller controller_;
  std::string starter_;
  std::int64_t ranks_per_node_, nodes_wanted_;
  BatchGuard guard_;
  std::map<std::string, NodeCores> cores_;  // of the nodes that answered last
  bool probed_ = false;
};

}  // namespace smlp
