#include "launcher/cluster.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/features.h"
#include "core/host_name.h"
#include "core/quantities.h"
#include "launcher/allocated_nodes.h"
#include "launcher/this_host.h"
#include "slurm/host_list.h"

namespace smlp {

bool may_use_gpus(const JobConfig& job) {
  const auto& device = job.cluster.device;
  return device == "cuda" || (device == "auto" && built_with_cuda() && job.train.precision != "f64");
}

std::string text_of(const Layout& layout) {
  return fmt::format("{} on {}", counted(layout.ranks, "rank"),
                     layout.nodes.empty() ? host_name() : compress_hosts(layout.nodes));
}

Binding choose_binding(const JobConfig& job, std::int64_t ranks_per_node, const std::vector<NodeCores>& nodes) {
  const CoreDemand demand{.ranks = ranks_per_node, .each = job.cluster.threads};
  const auto none = [](std::string why) { return Binding{.bound = false, .words = "ranks are not bound to cores: " + why}; };
  if (!job.cluster.bind_cores) return none("cluster.bind_cores = false");
  // cluster.threads is of ranks on processors. Beside a GPU threads of the driver, of NCCL, of the batch loader and of saves are
  // at work, one of which spins while it waits.
  if (may_use_gpus(job)) return none("beside a GPU a rank has more threads at work than cluster.threads");
  const auto wanted = demand.ranks * demand.each;
  for (const auto& [node, cores, ours_alone] : nodes) {
    const auto there = static_cast<std::int64_t>(cores.size());
    if (there == 0) return none(fmt::format("the cores of {} are not known", node));
    if (wanted > there) {
      return none(fmt::format("{} there outnumber the {} of {}", counted(wanted, "thread"), counted(there, "core"), node));
    }
    if (!may_bind(demand, there, ours_alone)) {
      return none(fmt::format("{} has {} cores, room for another job, which would take the same ones", node, there));
    }
  }
  return {.bound = true,
          .words = fmt::format("each rank has {} of its own", counted(demand.each, "core"))};
}

bool in_allocation() { return allocation_of_environment().has_value(); }

bool in_batch_job() {
  const auto allocation = allocation_of_environment();
  return allocation && allocation->in_batch_script;
}

std::unique_ptr<Cluster> make_cluster(const JobConfig& job, const RunDirectory& run,
                                      const std::filesystem::path& worker) {
  const auto& launcher = job.cluster.launcher;
  const bool across = launcher == "srun" || launcher == "mpirun";
  if (launcher == "local") return std::make_unique<ThisHost>(job);
  auto allocation = allocation_of_environment();
  if (allocation && (across || allocation->in_batch_script)) {
    return std::make_unique<AllocatedNodes>(job, run, worker, std::move(*allocation));
  }
  if (across) {
    throw Error(ExitCode::unavailable, fmt::format("cluster.launcher = \"{}\" starts ranks in a SLURM allocation, and this "
                                                   "is none; submit the job, or choose local", launcher));
  }
  return std::make_unique<ThisHost>(job);
}

}  // namespace smlp
