#include "slurm/steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <sstream>

#include "core/numbers.h"
#include "core/program.h"
#include "slurm/allocation.h"
#include "slurm/submit_environment.h"

namespace smlp {

namespace {

ProgramAnswer ask(const std::vector<std::string>& command, double seconds) {
  return run_program(command, query_environment(own_environment()), seconds);
}

}  // namespace

std::vector<std::string> step_environment(std::vector<std::string> variables) {
  constexpr std::array bending = {"SLURM_GPU_BIND",      "SLURM_TRES_BIND",    "SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK",
                                  "SLURM_TRES_PER_TASK", "SLURM_EXPORT_ENV",   "SRUN_EXPORT_ENV"};
  constexpr std::array of_gpus = {"SLURM_GPUS", "SLURM_GPUS_PER_TASK", "SLURM_GPUS_PER_NODE"};
  const auto drop = [&](const auto& names) {
    std::erase_if(variables, [&](const std::string& variable) {
      return std::find(names.begin(), names.end(), variable.substr(0, variable.find('='))) != names.end();
    });
  };
  drop(bending);
  const auto allocation = allocation_of_environment();
  if (!allocation || allocation->gpus_per_node == 0) return variables;
  drop(of_gpus);
  variables.push_back(fmt::format("SLURM_GPUS_PER_NODE={}", allocation->gpus_per_node));
  return variables;
}

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
