#include "slurm/batch_script.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/run_directory.h"
#include "core/slurm_values.h"

namespace smlp {

namespace {

constexpr const char* plain_bytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:=,+@%";

// `patterns`: SLURM replaces %j and the like in this path, and nothing once it holds a backslash.
void check_path(const char* what, const std::filesystem::path& path, bool patterns) {
  const auto& text = path.native();
  const auto control = find_control(text);
  if (control != std::string::npos || text.find('\t') != std::string::npos) {
    throw Error(ExitCode::configuration,
                fmt::format("{} holds a line break or another control character after '{}': a batch script can't name it; "
                            "choose another",
                            what, text.substr(0, std::min(control, text.find('\t')))));
  }
  if (patterns && text.find('\\') != std::string::npos) {
    throw Error(ExitCode::configuration,
                fmt::format("{} {} holds a backslash, and SLURM would write its log elsewhere; choose another", what, text));
  }
}

// By the id that SLURM and we name a job by: that of a task of an array is of two parts.
std::string log_pattern(const std::filesystem::path& run_directory, bool array) {
  const auto folder = RunDirectory{run_directory}.logs().string();
  std::string pattern;
  for (const char c : folder) pattern += c == '%' ? "%%" : std::string(1, c);
  return pattern + (array ? "/slurm-%A_%a.log" : "/slurm-%j.log");
}

class Directives {
 public:
  void add(const std::string& option) { text_ += fmt::format("#SBATCH --{}\n", option); }
  void add(const char* option, const std::string& value) {
    if (!value.empty()) add(fmt::format("{}={}", option, sbatch_quoted(value)));
  }
  void add(const char* option, std::int64_t value) {
    if (value > 0) add(fmt::format("{}={}", option, value));
  }
  void add_as_it_stands(const std::string& line) { text_ += fmt::format("#SBATCH {}\n", line); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string directives(const BatchScript& script, const JobConfig& job) {
  const auto& slurm = job.slurm;
  const auto nodes = slurm.nodes + job.cluster.spare_nodes;
  Directives lines;
  lines.add("job-name", job.name);
  lines.add("nodes", nodes);
  lines.add("ntasks", nodes * slurm.tasks_per_node);  // --gpus-per-task wants it beside the next
  lines.add("ntasks-per-node", slurm.tasks_per_node);
  lines.add("cpus-per-task", slurm.cpus_per_task > 0 ? slurm.cpus_per_task : job.cluster.threads);
  lines.add("gpus-per-task", slurm.gpus_per_task);
  lines.add("mem", slurm.memory);
  lines.add("time", slurm.time_limit);
  lines.add("partition", slurm.partition);
  lines.add("account", slurm.account);
  lines.add("qos", slurm.qos);
  lines.add("constraint", slurm.constraint);
  lines.add("array", slurm.array);
  lines.add("dependency", slurm.dependency);
  if (slurm.exclusive) lines.add("exclusive");
  lines.add("output", log_pattern(script.run_directory, !slurm.array.empty()));
  lines.add("open-mode=append");
  lines.add("requeue");
  lines.add("no-kill");
  lines.add(fmt::format("signal=B:USR1@{}", script.warning_seconds));
  for (const auto& option : slurm.extra) lines.add_as_it_stands(option);
  return lines.text();
}

constexpr const char* hold_signals = R"(
# Signals wait, blocked, until smlp takes them: none is lost or deadly while the lines below run.
if [ "${1:-}" != held ]; then
  if env --block-signal=USR1 true 2>/dev/null; then
    exec env --block-signal=USR1 --block-signal=TERM --block-signal=INT "$BASH" "$0" held
  fi
  trap '' USR1 TERM INT
fi
)";

std::string last_line(const BatchScript& script, const JobConfig& job) {
  auto line = fmt::format("exec {} run {} --run-dir {}", shell_quoted(script.program.native()),
                          shell_quoted(script.job_file.native()), shell_quoted(script.run_directory.native()));
  if (has_runs_of_their_own(job)) {
    line += fmt::format("/task-\"$SLURM_ARRAY_TASK_ID\" --set seed=\"$(({} + SLURM_ARRAY_TASK_ID))\"", job.seed);
  }
  for (const auto& word : script.run_options) line += " " + shell_quoted(word);
  return line + "\n";
}

}  // namespace

bool has_runs_of_their_own(const JobConfig& job) { return !job.slurm.array.empty() && !job.slurm.array.ends_with("%1"); }

std::string shell_quoted(std::string_view word) {
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

std::string sbatch_quoted(std::string_view value) {
  if (value.find_first_not_of(plain_bytes) == std::string_view::npos) return std::string(value);
  std::string quoted = "\"";
  for (const char c : value) quoted += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return quoted + "\"";
}

std::string text_of(const BatchScript& script, const JobConfig& job) {
  check_path("the run directory", script.run_directory, true);
  check_path("the path of smlp", script.program, false);
  check_path("the path of the job file", script.job_file, false);
  check_path("the path of this folder", script.working_directory, false);
  if (const auto problems = slurm_problems(job.slurm); !problems.empty()) {
    throw Error(ExitCode::configuration, fmt::format("{} {}", problems.front().first, problems.front().second));
  }
  auto text = "#!/bin/bash\n" + directives(script, job) + hold_signals;
  text += fmt::format("cd -- {} || exit {}\n", shell_quoted(script.working_directory.native()),
                      static_cast<int>(ExitCode::io_failed));
  for (const auto& line : job.slurm.setup) text += line + "\n";
  return text + last_line(script, job);
}

}  // namespace smlp
