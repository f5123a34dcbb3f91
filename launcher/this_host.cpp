#include "launcher/this_host.h"

namespace smlp {

ThisHost::ThisHost(const JobConfig& job)
    : layout_{.ranks = job.cluster.ranks, .threads = job.cluster.threads, .expert_ranks = job.cluster.expert_ranks},
      cores_(count_cores()) {}

Choice ThisHost::choose() { return {.layout = layout_, .notes = {}, .why_not = ""}; }

ProcessStart ThisHost::start(const Layout& layout, const std::vector<std::string>& program,
                             const std::filesystem::path& session) {
  const LaunchShape shape{layout.ranks, layout.threads};
  ProcessStart process;
  process.command = mpirun_command(shape, cores_);
  process.command.insert(process.command.end(), program.begin(), program.end());
  process.environment = launch_environment(shape, cores_, session);
  return process;
}

}  // namespace smlp
