#include "commands/submit_check.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "commands/planned_job.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/job_keys.h"
#include "core/json_lines.h"
#include "core/quantities.h"
#include "core/slurm_values.h"
#include "launcher/cluster.h"
#include "launcher/queue_look.h"
#include "launcher/run_history.h"

namespace smlp {

namespace {

[[noreturn]] void refuse(const LoadedJob& job, const std::string& key, const std::string& reason) {
  auto origin = origin_of(job, key);
  if (origin == "default") origin = job.file.string();
  throw Error(ExitCode::configuration, fmt::format("{}: {} = {} {}", origin, key, value_of(job.config, key), reason));
}

std::filesystem::path nearest_existing(std::filesystem::path folder) {
  std::error_code error;
  while (!std::filesystem::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  return folder;
}

// That a rank takes of its host's memory, as far as it is counted: beside a GPU, for the copy of a checkpoint alone.
std::optional<double> host_bytes_of_rank(const JobConfig& job, const nlohmann::json& counts) {
  const auto copy = number_in(counts, "checkpoint_copy_bytes_per_rank");
  if (may_use_gpus(job) || !copy || !counts.contains("memory_bytes_per_rank")) return copy;
  const auto computing = number_in(counts["memory_bytes_per_rank"], "total");
  return *copy + computing.value_or(0);
}

}  // namespace

void size_for_slurm(LoadedJob& job, std::int64_t ranks) {
  auto& slurm = job.config.slurm;
  auto& all = job.config.cluster.ranks;
  if (slurm.nodes == 0) {
    if (all % slurm.tasks_per_node != 0) {
      refuse(job, "slurm.tasks_per_node",
             fmt::format("does not divide cluster.ranks = {}: no number of nodes has so many; set slurm.nodes", all));
    }
    slurm.nodes = all / slurm.tasks_per_node;
    set_origin(job, "slurm.nodes", "cluster.ranks / slurm.tasks_per_node");
    return;
  }
  const auto wanted = slurm.nodes * slurm.tasks_per_node;
  if (ranks != 0 && ranks != wanted) {
    throw Error(ExitCode::usage,
                fmt::format("--ranks {} does not fit slurm.nodes = {} x slurm.tasks_per_node = {}; leave --ranks out, or "
                            "--set slurm.nodes=…",
                            ranks, slurm.nodes, slurm.tasks_per_node));
  }
  if (wanted != all) set_origin(job, "cluster.ranks", "slurm.nodes x slurm.tasks_per_node");
  all = wanted;
}

void check_time_limit(const LoadedJob& job, const MeasuredCosts& costs, std::int64_t warning_seconds) {
  const auto limit = slurm_seconds(job.config.slurm.time_limit);
  if (!limit) return;
  if (*limit <= static_cast<double>(warning_seconds)) {
    refuse(job, "slurm.time_limit",
           fmt::format("leaves no time to compute: the warning to save comes {} s before its end; lengthen it or lower "
                       "slurm.signal_seconds",
                       warning_seconds));
  }
  const auto& checkpoint = job.config.checkpoint;
  if (checkpoint.automatic) return;
  double interval = checkpoint.every_seconds > 0 ? checkpoint.every_seconds : INFINITY;
  if (checkpoint.every_steps > 0 && costs.step_seconds) {
    interval = std::min(interval, static_cast<double>(checkpoint.every_steps) * *costs.step_seconds);
  }
  if (!std::isfinite(interval) || *limit >= 3 * interval) return;
  refuse(job, "slurm.time_limit",
         fmt::format("is too short for three checkpoints: one comes every {} and the job would save little of its work; "
                     "lengthen it to {} at least, or save more often (checkpoint.every_steps, every_seconds)",
                     duration_text(interval), duration_text(3 * interval)));
}

nlohmann::json counts_of(const LoadedJob& job, std::vector<std::string>& notes) {
  const auto answer = ask_for_plan(job.config, "--json");
  auto counts = nlohmann::json::parse(answer.out, nullptr, false);
  if (answer.code == 0 && counts.is_object() && number_in(counts, "checkpoint_bytes")) return counts;
  notes.push_back(fmt::format("disk and memory were not checked: the size of a checkpoint is not known ({})", why_no_plan(answer)));
  return nullptr;
}

void check_memory(const LoadedJob& job, const nlohmann::json& counts, std::vector<std::string>& notes) {
  const auto& slurm = job.config.slurm;
  const auto asks_otherwise = [](const std::string& option) { return option.starts_with("--mem"); };
  if (std::any_of(slurm.extra.begin(), slurm.extra.end(), asks_otherwise)) return;
  const auto given = slurm_bytes(slurm.memory);
  const auto of_rank = host_bytes_of_rank(job.config, counts);
  if (!given || !of_rank) return;
  const double needed = *of_rank * static_cast<double>(slurm.tasks_per_node);
  if (needed <= *given) return;
  notes.push_back(fmt::format("slurm.memory = \"{}\" is less than the {} that {} on a node take, by `smlp plan` and without "
                              "what MPI and the libraries hold: where SLURM keeps jobs to their memory it will kill this one",
                              slurm.memory, size_text(static_cast<std::int64_t>(needed)),
                              slurm.tasks_per_node == 1 ? "the rank" : fmt::format("{} ranks", slurm.tasks_per_node)));
}

void check_disk(const LoadedJob& job, const RunDirectory& run, const nlohmann::json& counts, std::vector<std::string>& notes) {
  const auto bytes = number_in(counts, "checkpoint_bytes");
  if (!bytes) return;
  const auto folder = nearest_existing(run.root);
  std::error_code error;
  const auto space = std::filesystem::space(folder, error);
  if (error) return notes.push_back(fmt::format("the disk of {} was not checked: {}", folder.string(), error.message()));
  const auto& checkpoint = job.config.checkpoint;
  const auto for_good = checkpoint.keep_every > 0 ? job.config.train.steps / checkpoint.keep_every : 0;
  const auto kept = checkpoint.keep_last + (checkpoint.keep_best ? 1 : 0) + for_good;
  const auto there = std::min(static_cast<std::int64_t>(RunHistory(run).published_steps().size()), kept);
  const double needed = *bytes * static_cast<double>(kept + 1 - there), free = static_cast<double>(space.available);
  if (needed <= free) return;
  refuse(job, for_good > checkpoint.keep_last ? "checkpoint.keep_every" : "checkpoint.keep_last",
         fmt::format("needs {:.3g} bytes more in {}: {} checkpoints kept and one being written, {:.3g} bytes each, {} of "
                     "them there; {:.3g} bytes are free. Make room, keep fewer, or choose another --run-dir",
                     needed, folder.string(), kept, *bytes, there, free));
}

void check_partition(const LoadedJob& job, const Controller& controller, std::vector<std::string>& notes) {
  const auto& partition = job.config.slurm.partition;
  if (partition.empty() || !Controller::present()) return;
  const auto known = controller.partitions();
  if (!known) return notes.push_back(fmt::format("SLURM did not say whether there is a partition {}", partition));
  if (holds_partitions(*known, partition)) return;
  refuse(job, "slurm.partition", known->empty() ? std::string("is not there: SLURM has no partition that you may see")
                                                : fmt::format("is not there; SLURM has {}", listed(*known, "and")));
}

void check_writable(const RunDirectory& run) {
  std::error_code error;
  const auto folder = nearest_existing(run.root);
  const auto fail = [&](const std::string& why) {
    throw Error(ExitCode::io_failed, fmt::format("the run directory {} can't be written: {}; choose another --run-dir",
                                                 run.root.string(), why));
  };
  if (!std::filesystem::is_directory(folder, error)) fail(fmt::format("{} is no folder", folder.string()));
  if (access(folder.c_str(), W_OK | X_OK) != 0) fail(fmt::format("{}: {}", folder.string(), std::strerror(errno)));
}

bool check_earlier_submissions(const LoadedJob& job, const RunDirectory& run, const Controller& controller) {
  if (!job.config.slurm.dependency.empty()) return true;
  for (const auto& id : submitted_jobs(run)) {
    const auto answer = controller.state_of_job(id);
    if (answer.silent()) return true;
    constexpr std::array there = {JobState::pending, JobState::running, JobState::preempted, JobState::requeued};
    if (std::find(there.begin(), there.end(), answer.state) == there.end()) continue;
    throw Error(ExitCode::call_again,
                fmt::format("job {} of {} is {} still; `scancel {}` ends it, slurm.dependency = \"afterany:{}\" waits for it",
                            id, run.root.string(), name_of(answer.state), id, id));
  }
  return false;
}

}  // namespace smlp
