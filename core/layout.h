// How the parts of a job are spread over its ranks, where that is decided anew: after nodes were lost, or in a command
// that is given another number of ranks.
#pragma once

#include <cstdint>

#include "core/job_config.h"

namespace smlp {

// Ranks that together hold every expert: the resolved job's own number where it divides `ranks`, else
// gcd(experts, ranks).
std::int64_t expert_ranks_on(const JobConfig& job, std::int64_t ranks);

// The job on another number of ranks. It need not divide the global batch: the rounds are uneven then.
void spread_over(JobConfig& job, std::int64_t ranks);

}  // namespace smlp
