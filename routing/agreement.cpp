#include "routing/agreement.h"

#include "core/error.h"

namespace smlp {

void PlanComparison::find(Backend& backend, const RoutePlan& plan, std::vector<Experts>& of_tokens) {
  token_of_slot_.resize(static_cast<std::size_t>(plan.slots()));
  if (!token_of_slot_.empty()) backend.download(plan.token_of_slot, token_of_slot_.data());
  std::size_t slot = 0;
  for (std::size_t expert = 0; expert < plan.rows_of_expert.size(); ++expert) {
    for (std::int64_t i = 0; i < plan.rows_of_expert[expert]; ++i, ++slot) {
      const std::int32_t token = token_of_slot_[slot];
      if (token < 0) continue;
      expect(static_cast<std::size_t>(token) < of_tokens.size(), "routing: a slot holds a token that does not exist");
      auto& [first, second] = of_tokens[static_cast<std::size_t>(token)];
      expect(second < 0, "routing: a token sits in more than two slots");
      (first < 0 ? first : second) = static_cast<std::int32_t>(expert);
    }
  }
}

std::int64_t PlanComparison::tokens_sent_alike(Backend& backend, const RoutePlan& a, const RoutePlan& b, std::int64_t rows) {
  for (auto* of_tokens : {&of_a_, &of_b_}) of_tokens->assign(static_cast<std::size_t>(rows), {-1, -1});
  find(backend, a, of_a_);
  find(backend, b, of_b_);
  std::int64_t alike = 0;
  for (std::size_t token = 0; token < of_a_.size(); ++token) alike += of_a_[token] == of_b_[token] ? 1 : 0;
  return alike;
}

}  // namespace smlp
