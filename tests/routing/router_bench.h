// A router on the CPU backend by itself: its store, poisoned scratch memory, and what it decided, on the host.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "routing/make_router.h"
#include "tests/layers/bench.h"

namespace smlp::test {

// Who sits where, read back: per expert the tokens in order of slot, and each token's weight at each expert.
struct Decision {
  std::vector<std::vector<std::int32_t>> tokens_of_expert;  // without empty slots
  std::vector<std::vector<double>> weight;                  // [token][expert]; NaN: not sent there
  double dropped = 0;

  bool sent(std::size_t token, std::size_t expert) const { return weight[token][expert] == weight[token][expert]; }
  bool operator==(const Decision& other) const {
    return tokens_of_expert == other.tokens_of_expert && dropped == other.dropped;
  }
};

struct RouterBench {
  explicit RouterBench(DType type = DType::f64) : type(type) {}

  Router& make(const RouterSettings& settings, std::int64_t experts, std::int64_t width, std::int64_t layers = 1) {
    router = make_router(settings, store, "layer", {experts, width, 11, layers});
    store.seal(*backend, type, 1);
    store.zero_grad(*backend);
    backend->fill(scratch.take({1 << 15}, DType::f64), std::numeric_limits<double>::quiet_NaN());
    return *router;
  }
  // The gate's logits are then the rows of x themselves.
  void identity_weight() {
    Parameter& weight = store.find("layer.router.weight");
    const auto n = static_cast<std::size_t>(weight.shape[1]);
    std::vector<double> eye(static_cast<std::size_t>(weight.shape.size()), 0);
    for (std::size_t e = 0; e < static_cast<std::size_t>(weight.shape[0]); ++e) eye[e * n + e] = 1;
    write(*backend, weight.value, eye);
  }
  TensorView rows(const std::vector<double>& values, std::int64_t width) {
    const TensorView view = memory.take({static_cast<std::int64_t>(values.size()) / width, width}, type);
    write(*backend, view, values);
    return view;
  }
  RouteCall call(std::int64_t group_rows, bool training = true) {
    scratch.reset();
    return {.backend = *backend, .scratch = scratch, .training = training, .group_rows = group_rows, .seed = 3, .step = 5};
  }
  // Zeroed memory for the auxiliary losses of so many groups; row_scale 1 / rows.
  void with_losses(RouteCall& c, std::int64_t groups) {
    c.auxiliary = memory.take({groups, 2}, DType::f64);
    c.row_scale = memory.take({1}, DType::f64);
    backend->fill(c.auxiliary, 0);
    backend->fill(c.row_scale, 1 / static_cast<double>(groups * c.group_rows));
  }

  Decision decision(const RoutePlan& plan, std::int64_t tokens) {
    Decision d;
    std::vector<std::int32_t> token_of_slot(static_cast<std::size_t>(plan.slots()));
    backend->download(plan.token_of_slot, token_of_slot.data());
    const auto weights = plan.weight ? read(*backend, plan.weight) : std::vector<double>(token_of_slot.size(), 1);
    const std::size_t experts = plan.rows_of_expert.size();
    d.weight.assign(static_cast<std::size_t>(tokens),
                    std::vector<double>(experts, std::numeric_limits<double>::quiet_NaN()));
    std::set<std::int32_t> tokens_so_far;
    std::size_t slot = 0;
    for (std::size_t e = 0; e < experts; ++e) {
      auto& list = d.tokens_of_expert.emplace_back();
      for (std::int64_t i = 0; i < plan.rows_of_expert[e]; ++i, ++slot) {
        const std::int32_t token = token_of_slot.at(slot);
        if (token < 0) {
          EXPECT_EQ(weights[slot], 0) << "an empty slot weighs something";
          EXPECT_FALSE(plan.no_empty_slot);
          continue;
        }
        const bool is_new = tokens_so_far.insert(token).second;
        EXPECT_TRUE(is_new || plan.repeats == Repeats::possible) << "token " << token << " sits twice";
        auto& weight = d.weight.at(static_cast<std::size_t>(token))[e];
        EXPECT_TRUE(weight != weight) << "token " << token << " sits twice at expert " << e;
        weight = weights[slot];
        list.push_back(token);
      }
    }
    EXPECT_EQ(slot, token_of_slot.size()) << "rows_of_expert does not count the slots";
    if (plan.dropped) d.dropped = read(*backend, plan.dropped)[0];
    return d;
  }
  Decision decide(RouteCall c, TensorView x) { return decision(router->plan(c, x), x.rows()); }

  DType type;
  std::unique_ptr<Backend> backend = make_cpu_backend();
  Memory memory{*backend};
  ParameterStore store;
  Arena scratch{*backend};
  std::unique_ptr<Router> router;
};

// Six tokens' logits for three experts, of the golden vectors.
inline const std::vector<double> vector_logits = {2, 1, 0, 1.5, 1.4, .2, .1, .3, .2, 3, .5, .1, 2.5, 2.4, 2.3, 0, 1, 2};

inline RouterSettings switch_settings() {
  RouterSettings settings{.tokens = "switch"};
  return settings;
}
inline RouterSettings gshard_settings(SecondChoice second = SecondChoice::all, bool before = false) {
  RouterSettings settings{.tokens = "gshard"};
  settings.softmax.second = second;
  if (before) settings.softmax.normalise = Normalise::before_dropping;
  return settings;
}

}  // namespace smlp::test
