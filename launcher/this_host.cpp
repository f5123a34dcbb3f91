#include "launcher/this_host.h"

#include "core/features.h"

namespace smlp {

ThisHost::ThisHost(const JobConfig& job)
    : layout_{.ranks = job.cluster.ranks,
              .threads = job.cluster.threads,
              .expert_ranks = job.cluster.expert_ranks,
              .ranks_per_node = job.cluster.ranks,
              .cores = {cores_here()}},
      cores_(count_cores()) {
  if (!built_with_mpi()) layout_.starter = "smlp-worker";
  layout_.binding = choose_binding(job, layout_.ranks, {{.node = "this host", .cores = layout_.cores[0], .ours_alone = false}});
}

Choice ThisHost::choose() { return {.layout = layout_, .notes = {}, .why_not = ""}; }

ProcessStart ThisHost::start(const Layout& layout, const std::vector<std::string>& program) {
  SessionFolder::sweep();
  session_.emplace(layout.ranks);
  const LaunchShape shape{layout.ranks, layout.threads};
  ProcessStart process;
  if (built_with_mpi()) process.command = mpirun_command(shape, layout.binding.bound);
  process.command.insert(process.command.end(), program.begin(), program.end());
  process.environment = launch_environment(shape, cores_, session_->path());
  return process;
}

}  // namespace smlp
