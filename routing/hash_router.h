// HASH: a token's expert is what a table says of its id, in training and evaluation alike; every answer counts as it
// is, nothing is dropped, nothing is learned. The table goes with the weights into the checkpoint.
#pragma once

#include <string>

#include "routing/router.h"

namespace smlp {

class HashRouter final : public Router {
 public:
  // `experts_of_tokens`: one entry for each id of the vocabulary, or empty where a checkpoint brings them.
  HashRouter(ParameterStore& store, const std::string& name, std::int64_t experts, std::int64_t vocabulary,
             std::vector<std::int32_t> experts_of_tokens);

  void decide(RouteCall& call, TensorView x, RoutePlan& plan) override;
  void backward(RouteCall& call, const RoutePlan& plan, TensorView dweight, TensorView residual,
                TensorView dx) override;
  std::optional<std::int64_t> slots_of_group(bool, std::int64_t) const override { return std::nullopt; }

 private:
  std::int64_t experts_;
  Table& table_;
};

}  // namespace smlp
