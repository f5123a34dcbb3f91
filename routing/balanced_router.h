// BASE's routing: scores are products with one centroid an expert; training assigns every group of tokens
// in balance, evaluation sends each token to its best expert. An answer counts sigmoid(x · centroid), which
// is the only way a gradient reaches the centroids.
#pragma once

#include <string>

#include "routing/linear_scores.h"

namespace smlp {

class BalancedRouter final : public Router {
 public:
  BalancedRouter(ParameterStore& store, const std::string& name, std::int64_t experts, std::int64_t width);

  void decide(RouteCall& call, TensorView x, RoutePlan& plan) override;
  void backward(RouteCall& call, const RoutePlan& plan, TensorView dweight, TensorView residual,
                TensorView dx) override;
  std::optional<std::int64_t> slots_of_group(bool training, std::int64_t tokens) const override;

 private:
  std::int64_t experts_;
  LinearScores centroids_;
  TensorView alpha_;  // of the last plan
};

}  // namespace smlp
