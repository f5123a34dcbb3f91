// How alike two plans are: training assigns tokens in balance, evaluation as each token likes it best, and what a model
// learned with the one may be judged with the other.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "routing/router.h"

namespace smlp {

// Owns the working memory, so that a second comparison of plans of the same size allocates nothing.
class PlanComparison {
 public:
  // Of `rows` tokens, those that both plans send to the same experts: none at all is the same as none. Waits.
  std::int64_t tokens_sent_alike(Backend& backend, const RoutePlan& a, const RoutePlan& b, std::int64_t rows);

 private:
  using Experts = std::array<std::int32_t, 2>;  // of one token, in ascending order; -1: none
  void find(Backend& backend, const RoutePlan& plan, std::vector<Experts>& of_tokens);

  std::vector<std::int32_t> token_of_slot_;
  std::vector<Experts> of_a_, of_b_;
};

}  // namespace smlp
