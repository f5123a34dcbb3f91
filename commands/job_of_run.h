// What may not change of a run: the job that its checkpoints are of, whatever became of its job.toml since.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/job_file.h"
#include "core/run_directory.h"

namespace smlp {

// By the newest checkpoint that can be read; where none can, by job.toml. The keys that may change are as job.toml's or
// defaults. nullopt when there are no checkpoints, so that any job may start. Throws Error(configuration) where one is of a
// newer format than this program reads.
struct JobOfRun {
  JobConfig config;
  std::filesystem::path checkpoint;  // that says so; empty: none can be read
  std::string tokenizer;  // fingerprint of the one behind its training data; "": not known
};
std::optional<JobOfRun> job_of_run(const RunDirectory& run);

// Throws Error(configuration) where data.tokenizer is named as it was, and is another than `run` was trained with, unless that
// key is among the `accepted` ones.
void check_same_tokenizer(const RunDirectory& run, const JobOfRun& before, const JobConfig& now,
                          const std::vector<std::string>& accepted);

// Of a run that goes on: says so where train.steps lies beyond the end of its cosine, which stays where the run began with it.
void tell_of_flat_rate(const JobConfig& job);

}  // namespace smlp
