// Changes of a run's job that would leave it without a checkpoint to go on from.
#pragma once

#include <string>
#include <vector>

#include "commands/job_of_run.h"
#include "core/job_file.h"

namespace smlp {

// Throws Error(configuration) where `job` makes another model than the checkpoint that `before` is of holds: tensors of
// other names, types or shapes. `changed`: the keys that differ. Where smlp-worker can't say, it is told and no more: the
// ranks compare again.
void expect_same_tensors(const JobOfRun& before, const LoadedJob& job, const std::vector<std::string>& changed);

}  // namespace smlp
