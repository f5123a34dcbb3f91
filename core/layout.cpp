#include "core/layout.h"

#include <numeric>

namespace smlp {

std::int64_t expert_ranks_on(const JobConfig& job, std::int64_t ranks) {
  const auto own = job.cluster.expert_ranks;
  if (own > 0 && ranks % own == 0) return own;
  return job.model.sparse_blocks == 0 ? 1 : std::gcd(job.model.experts, ranks);
}

ExpertPlace expert_place(std::int64_t rank, std::int64_t expert_ranks, std::int64_t experts) {
  const auto each = experts / expert_ranks, place = rank % expert_ranks;
  return {.group = rank / expert_ranks, .replicas = place, .first_expert = place * each, .experts = each};
}

void spread_over(JobConfig& job, std::int64_t ranks) {
  job.cluster.expert_ranks = expert_ranks_on(job, ranks);
  job.cluster.ranks = ranks;
}

}  // namespace smlp
