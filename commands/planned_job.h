// What smlp-worker says of a job without running it.
#pragma once

#include <string>

#include "core/job_file.h"
#include "core/program.h"

namespace smlp {

// `smlp-worker plan --job … WHAT`: --json (sizes), --tensors (names, types and shapes).
ProgramAnswer ask_for_plan(const JobConfig& job, const std::string& what);
std::string why_no_plan(const ProgramAnswer& answer);  // in its own words, one line

}  // namespace smlp
