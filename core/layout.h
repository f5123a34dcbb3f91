// How the parts of a job are spread over its ranks, where that is decided anew: after nodes were lost, or in a command
// that is given another number of ranks.
#pragma once

#include <cstdint>

#include "core/job_config.h"

namespace smlp {

// Ranks that together hold every expert: the resolved job's own number where it divides `ranks`, else
// gcd(experts, ranks), with routing.shuffle as much of it as divides a micro-batch's tokens.
std::int64_t expert_ranks_on(const JobConfig& job, std::int64_t ranks);

// The groups and experts of a rank, by the one rule that ranks are cut by: an expert group is `expert_ranks` ranks that
// follow one another, so that launchers which fill one node after another keep it close together.
struct ExpertPlace {
  std::int64_t group = 0, replicas = 0;  // numbers of its expert group and of its group of replicas
  std::int64_t first_expert = 0, experts = 0;  // of each sparse block
};
ExpertPlace expert_place(std::int64_t rank, std::int64_t expert_ranks, std::int64_t experts);

// The job on another number of ranks. It need not divide the global batch: the rounds are uneven then.
void spread_over(JobConfig& job, std::int64_t ranks);

}  // namespace smlp
