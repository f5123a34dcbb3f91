#include "routing/agreement.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace smlp {

namespace {

using Choice = std::pair<std::int32_t, std::int64_t>;  // token, expert

std::vector<Choice> choices_of(Backend& backend, const RoutePlan& plan) {
  std::vector<std::int32_t> token_of_slot(static_cast<std::size_t>(plan.slots()));
  if (!token_of_slot.empty()) backend.download(plan.token_of_slot, token_of_slot.data());
  std::vector<Choice> choices;
  std::size_t slot = 0;
  for (std::size_t expert = 0; expert < plan.rows_of_expert.size(); ++expert) {
    for (std::int64_t i = 0; i < plan.rows_of_expert[expert]; ++i, ++slot) {
      if (token_of_slot[slot] >= 0) choices.emplace_back(token_of_slot[slot], static_cast<std::int64_t>(expert));
    }
  }
  std::sort(choices.begin(), choices.end());
  return choices;
}

}  // namespace

std::int64_t tokens_sent_alike(Backend& backend, const RoutePlan& a, const RoutePlan& b, std::int64_t rows) {
  const auto of_a = choices_of(backend, a), of_b = choices_of(backend, b);
  std::int64_t alike = 0;
  auto at_a = of_a.begin(), at_b = of_b.begin();
  for (std::int64_t token = 0; token < rows; ++token) {
    const auto is_token = [token](const Choice& choice) { return choice.first == token; };
    const auto end_a = std::find_if_not(at_a, of_a.end(), is_token), end_b = std::find_if_not(at_b, of_b.end(), is_token);
    if (std::equal(at_a, end_a, at_b, end_b)) ++alike;
    at_a = end_a;
    at_b = end_b;
  }
  return alike;
}

}  // namespace smlp
