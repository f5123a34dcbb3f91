#include "launcher/cluster.h"

#include <fmt/format.h>

#include "core/error.h"
#include "launcher/allocated_nodes.h"
#include "launcher/this_host.h"
#include "slurm/host_list.h"

namespace smlp {

std::string text_of(const Layout& layout) {
  return fmt::format("{} rank{} on {}", layout.ranks, layout.ranks == 1 ? "" : "s",
                     layout.nodes.empty() ? host_name() : compress_hosts(layout.nodes));
}

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
