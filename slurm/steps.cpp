#include "slurm/steps.h"

#include <algorithm>
#include <sstream>

#include "core/numbers.h"
#include "slurm/program.h"

namespace smlp {

std::optional<std::vector<std::string>> steps_of_job(const std::string& job_id, const std::string& except,
                                                     double seconds) {
  const auto answer = run_program({"squeue", "--steps", "--noheader", "--jobs", job_id, "--format=%i %j"},
                                  own_environment(), seconds);
  if (answer.code != 0) return std::nullopt;
  std::vector<std::string> steps;
  std::istringstream lines(answer.out);
  for (std::string line; std::getline(lines, line);) {
    const auto id = line.substr(0, line.find(' '));
    const auto name = line.substr(std::min(id.size() + 1, line.size()));
    const auto dot = id.rfind('.');
    const bool numbered = dot != std::string::npos && dot + 1 < id.size() &&
                          id.find_first_not_of("0123456789", dot + 1) == std::string::npos;
    if (numbered && name != except) steps.push_back(id);
  }
  return steps;
}

void kill_steps(const std::vector<std::string>& steps, double seconds) {
  if (steps.empty()) return;
  std::vector<std::string> command = {"scancel", "--signal=KILL"};
  command.insert(command.end(), steps.begin(), steps.end());
  run_program(command, own_environment(), seconds);
}

std::optional<std::int64_t> take_step_number(double seconds) {
  const auto answer = run_program({"srun", "--overlap", "--mpi=none", "--nodes=1", "--ntasks=1", "--relative=0",
                                   "--immediate=30", "printenv", "SLURM_STEP_ID"},
                                  own_environment(), seconds);
  std::string_view said = answer.out;
  return answer.code == 0 ? take_whole_number(said) : std::nullopt;
}

}  // namespace smlp
