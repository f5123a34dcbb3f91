#include "core/layout.h"

#include <numeric>

namespace smlp {

std::int64_t expert_ranks_on(const JobConfig& job, std::int64_t ranks) {
  const auto own = job.cluster.expert_ranks;
  if (own > 0 && ranks % own == 0) return own;
  if (job.model.sparse_blocks == 0) return 1;
  const auto ways = std::gcd(job.model.experts, ranks);
  // Shuffling deals a micro-batch's tokens out evenly. gcd(ways, tokens) divides both. Where somebody is there to choose, at
  // the first start, check_and_resolve() refuses the job instead: fewer ranks share the memory of experts then.
  return job.routing.shuffle ? std::gcd(ways, job.train.micro_batch * job.model.context) : ways;
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
