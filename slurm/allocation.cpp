#include "slurm/allocation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "core/numbers.h"
#include "slurm/host_list.h"

namespace smlp {

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

[[noreturn]] void unreadable(const char* name, const std::string& why) {
  throw Error(ExitCode::unavailable, fmt::format("{}={}: {}; is this environment SLURM's own?", name, variable(name), why));
}

std::int64_t number_or(const char* name, std::int64_t fallback) {
  const auto text = variable(name);
  if (text.empty()) return fallback;
  const auto value = parse_whole_number(text);
  if (!value) unreadable(name, "a number is expected");
  return *value;
}

// "4(x3),2": 4 on each of three nodes, 2 on the fourth. Empty when the variable is not set.
std::vector<std::int64_t> per_node(const char* name, std::size_t nodes) {
  std::vector<std::int64_t> counts;
  std::string text = variable(name);
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    const auto bracket = part.find("(x");
    const bool repeated = bracket != std::string_view::npos && part.ends_with(')');
    const auto value = parse_whole_number(part.substr(0, bracket));
    const auto times = repeated ? parse_whole_number(part.substr(bracket + 2, part.size() - bracket - 3))
                                : std::optional(std::int64_t{1});
    if (!value || !times || *times > static_cast<std::int64_t>(nodes - counts.size())) {
      unreadable(name, fmt::format("counts for {} nodes are expected, as in 4(x3),2", nodes));
    }
    counts.insert(counts.end(), static_cast<std::size_t>(*times), *value);
  }
  if (!counts.empty() && counts.size() != nodes) {
    unreadable(name, fmt::format("counts for {} nodes are expected, not for {}", nodes, counts.size()));
  }
  return counts;
}

// "2", or of a type "a100:2".
std::optional<std::int64_t> gpus_per_task() {
  const auto text = variable("SLURM_GPUS_PER_TASK");
  return parse_whole_number(std::string_view(text).substr(text.rfind(':') + 1));  // all of it where there is no colon
}

}  // namespace

std::vector<std::string> Allocation::node_names() const {
  std::vector<std::string> names;
  for (const auto& node : nodes) names.push_back(node.name);
  return names;
}

std::string Allocation::controller_id() const {
  return array ? fmt::format("{}_{}", array->job_id, array->task) : job_id;
}

std::int64_t Allocation::cpus_of(const std::string& name) const {
  const auto node = std::find_if(nodes.begin(), nodes.end(), [&](const Node& one) { return one.name == name; });
  return node == nodes.end() ? 0 : node->cpus;
}

bool is_job_around_us(const std::string& id) {
  return id == variable("SLURM_JOB_ID") ||
         id == fmt::format("{}_{}", variable("SLURM_ARRAY_JOB_ID"), variable("SLURM_ARRAY_TASK_ID"));
}

std::optional<Allocation> allocation_of_environment() {
  Allocation allocation;
  allocation.job_id = variable("SLURM_JOB_ID");
  if (allocation.job_id.empty()) return std::nullopt;
  const auto names = expand_hosts(variable("SLURM_JOB_NODELIST"));
  if (!names || names->empty()) unreadable("SLURM_JOB_NODELIST", "a list of nodes is expected, as in n[1-3,7]");

  allocation.restarts = number_or("SLURM_RESTART_COUNT", 0);
  const auto cpus = per_node("SLURM_JOB_CPUS_PER_NODE", names->size());
  for (std::size_t i = 0; i < names->size(); ++i) {
    Allocation::Node node{.name = (*names)[i]};
    if (!cpus.empty()) node.cpus = cpus[i];
    allocation.nodes.push_back(node);
  }
  if (const auto array = variable("SLURM_ARRAY_JOB_ID"); !array.empty()) {
    allocation.array = {.job_id = array, .task = number_or("SLURM_ARRAY_TASK_ID", 0)};
  }
  const auto each = gpus_per_task();
  if (each || !variable("SLURM_GPUS").empty()) {
    // salloc tells the tasks alone.
    allocation.gpus_per_node = number_or("SLURM_GPUS_ON_NODE", each.value_or(0) * number_or("SLURM_NTASKS_PER_NODE", 0));
  }
  allocation.cpus_per_task = number_or("SLURM_CPUS_PER_TASK", 0);
  allocation.in_batch_script = variable("ENVIRONMENT") == "BATCH" && variable("SLURM_STEP_ID").empty();
  return allocation;
}

}  // namespace smlp
