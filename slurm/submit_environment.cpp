#include "slurm/submit_environment.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <sstream>
#include <string_view>

#include "core/files.h"
#include "slurm/allocation.h"

namespace smlp {

namespace {

template <class Range>
bool starts_with_any(std::string_view text, const Range& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) { return text.starts_with(prefix); });
}

std::string name_of_variable(const std::string& variable) { return variable.substr(0, variable.find('=')); }

// "--open-mode=append" -> "SBATCH_OPEN_MODE", and what sbatch calls otherwise.
std::set<std::string> variables_of_option(const std::string& option) {
  auto name = option.substr(0, option.find_first_of("= \t"));
  if (!name.starts_with("--")) return {};
  name = "SBATCH_" + name.substr(2);
  for (auto& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (name == "SBATCH_TIME") return {"SBATCH_TIMELIMIT"};
  if (name == "SBATCH_ARRAY") return {"SBATCH_ARRAY_INX", "SBATCH_ARRAY"};
  if (name == "SBATCH_MEM") return {"SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"};
  if (name == "SBATCH_REQUEUE") return {"SBATCH_REQUEUE", "SBATCH_NO_REQUEUE"};
  return {name};
}

}  // namespace

std::vector<std::string> query_environment(std::vector<std::string> variables) {
  constexpr std::array prefixes = {"SQUEUE_",   "SCANCEL_",           "SINFO_",
                                  "SCONTROL_", "SLURM_TIME_FORMAT=", "SLURM_BITSTR_LEN="};
  std::erase_if(variables, [&](const std::string& variable) { return starts_with_any(variable, prefixes); });
  return variables;
}

std::vector<std::string> step_environment(std::vector<std::string> variables) {
  constexpr std::array bending = {"SLURM_GPU_BIND",      "SLURM_TRES_BIND",    "SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK",
                                  "SLURM_TRES_PER_TASK", "SLURM_EXPORT_ENV",   "SRUN_EXPORT_ENV"};
  constexpr std::array of_gpus = {"SLURM_GPUS", "SLURM_GPUS_PER_TASK", "SLURM_GPUS_PER_NODE"};
  const auto drop = [&](const auto& names) {
    std::erase_if(variables, [&](const std::string& variable) {
      return std::find(names.begin(), names.end(), name_of_variable(variable)) != names.end();
    });
  };
  drop(bending);
  const auto allocation = allocation_of_environment();
  if (!allocation || allocation->gpus_per_node == 0) return variables;
  drop(of_gpus);
  variables.push_back(fmt::format("SLURM_GPUS_PER_NODE={}", allocation->gpus_per_node));
  return variables;
}

std::vector<std::string> submit_environment(std::vector<std::string> variables, const std::string& script_path,
                                            const std::vector<std::string>& arguments) {
  constexpr std::array of_the_cluster = {"SLURM_CONF=", "SLURM_CONF_SERVER=", "SLURM_JWT=", "SLURM_CLUSTERS="};
  std::set<std::string> spoken_for;
  const auto speak_for = [&](const std::string& option) { spoken_for.merge(variables_of_option(option)); };
  for (const auto& argument : arguments) speak_for(argument);
  const std::string mark = "#SBATCH ";
  std::istringstream lines(read_if_there(script_path));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(mark)) speak_for(line.substr(mark.size()));
  }
  std::erase_if(variables, [&](const std::string& variable) {
    const bool of_a_job = variable.starts_with("SLURM_") && !starts_with_any(variable, of_the_cluster);
    return of_a_job || spoken_for.contains(name_of_variable(variable));
  });
  return variables;
}

}  // namespace smlp
