// The job that a checkpoint is of, as its manifest keeps it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/job_file.h"

namespace smlp {

// Of `state`, read from `checkpoint`; `overrides` as parse_job takes them. Throws Error(bad_data) where it names none.
LoadedJob saved_job(const RunState& state, const std::filesystem::path& checkpoint,
                    const std::vector<std::string>& overrides = {});

}  // namespace smlp
