#include "slurm/steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <sstream>

#include "core/numbers.h"
#include "core/program.h"
#include "slurm/submit_environment.h"

namespace smlp {

namespace {

ProgramAnswer ask(const std::vector<std::string>& command, double seconds) {
  return run_program(command, query_environment(own_environment()), seconds);
}

}  // namespace

std::string step_name_of(const RunDirectory& run) {
  std::error_code as_it_stands;
  const auto place = std::filesystem::weakly_canonical(run.root, as_it_stands);
  return fmt::format("smlp-ranks-{:016x}", std::hash<std::string>{}((as_it_stands ? run.root : place).string()));
}

std::optional<std::vector<std::string>> steps_named(const std::string& name, const std::string& job, double seconds) {
  const auto answer = ask({"squeue", "--steps", "--noheader", "--jobs", job, "--format=%i %j"}, seconds);
  if (answer.code != 0) return std::nullopt;
  std::vector<std::string> steps;
  std::istringstream lines(answer.out);
  for (std::string line; std::getline(lines, line);) {
    const auto id = line.substr(0, line.find(' '));
    if (line.substr(std::min(id.size() + 1, line.size())) == name) steps.push_back(id);
  }
  return steps;
}

void kill_steps(const std::vector<std::string>& steps, double seconds) {
  if (steps.empty()) return;
  std::vector<std::string> command = {"scancel", "--signal=KILL"};
  command.insert(command.end(), steps.begin(), steps.end());
  ask(command, seconds);
}

std::optional<std::int64_t> take_step_number(const std::string& name, double seconds) {
  const auto answer = run_program({"srun", "--overlap", "--mpi=none", "--nodes=1", "--ntasks=1", "--relative=0",
                                   "--immediate=30", "--job-name=" + name, "printenv", "SLURM_STEP_ID"},
                                  query_environment(step_environment(own_environment())), seconds);
  std::string_view said = answer.out;
  return answer.code == 0 ? take_whole_number(said) : std::nullopt;
}

}  // namespace smlp
