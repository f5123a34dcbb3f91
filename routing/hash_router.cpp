#include "routing/hash_router.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace smlp {

HashRouter::HashRouter(ParameterStore& store, const std::string& name, std::int64_t experts, std::int64_t vocabulary,
                       std::vector<std::int32_t> experts_of_tokens)
    : experts_(experts), table_(store.add_table(name, vocabulary, std::move(experts_of_tokens))) {
  for (const std::int32_t e : table_.values) {
    expect(e >= 0 && e < experts, [&] { return fmt::format("table '{}' names expert {} of {}", name, e, experts); });
  }
}

void HashRouter::decide(RouteCall& call, TensorView x, RoutePlan& plan) {
  plan.begin(experts_);
  plan.repeats = Repeats::none;
  plan.no_empty_slot = true;
  plan.token_of_slot = call.scratch.take({x.rows()}, DType::i32);
  if (x.rows() == 0) return;
  const Arena::Frame frame(call.scratch);
  const TensorView expert = call.scratch.take({x.rows(), 1}, DType::i32);
  call.backend.look_up(table_.view, call.tokens, expert.reshaped({x.rows()}));
  call.backend.place_tokens({.expert = expert,
                             .experts = experts_,
                             .group_rows = x.rows(),
                             .rows_of_expert = plan.rows_of_expert,
                             .token_of_slot = plan.token_of_slot});
}

void HashRouter::backward(RouteCall& call, const RoutePlan&, TensorView, TensorView residual, TensorView dx) {
  if (dx.rows() == 0) return;
  if (residual) return call.backend.copy(residual, dx);
  call.backend.fill(dx, 0);
}

}  // namespace smlp
