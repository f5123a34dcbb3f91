// What may not change of a run: the job that its checkpoints are of, whatever became of its job.toml since.
#pragma once

#include <optional>

#include "core/job_file.h"
#include "core/run_directory.h"

namespace smlp {

// By the newest checkpoint that can be read; where none can, by job.toml. The keys that may change are as job.toml's or
// defaults. nullopt when there are no checkpoints, so that any job may start.
std::optional<JobConfig> job_of_run(const RunDirectory& run);

// Throws Error(configuration) where data.tokenizer is named as it was, and is another than the run was trained with.
void check_tokenizer_of_run(const RunDirectory& run, const LoadedJob& job);

}  // namespace smlp
