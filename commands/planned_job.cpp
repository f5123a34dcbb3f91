#include "commands/planned_job.h"

#include "commands/job_options.h"
#include "launcher/mpi_launch.h"

namespace smlp {

namespace {

constexpr double plan_seconds = 120;

}  // namespace

ProgramAnswer ask_for_plan(const JobConfig& job, const std::string& what) {
  const TemporaryJob file(job);
  const LaunchShape shape{.ranks = 1, .threads = job.cluster.threads};
  return run_program({find_worker().string(), "plan", "--job", file.path().string(), what},
                     launch_environment(shape, count_cores(), {}), plan_seconds);
}

std::string why_no_plan(const ProgramAnswer& answer) {
  return answer.failure.empty() ? answer.err.substr(0, answer.err.find('\n')) : answer.failure;
}

}  // namespace smlp
