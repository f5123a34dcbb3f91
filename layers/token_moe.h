// tMoE: every token goes to the expert that the router chose, and x gains what comes back, weighted.
// Routing decides, the exchange moves, this layer joins the two.
#pragma once

#include <memory>
#include <string>

#include "layers/dropout.h"
#include "layers/feedforward_experts.h"
#include "routing/router.h"

namespace smlp {

struct TokenMoeSizes {
  std::int64_t width, hidden, experts, group_sequences;
};

class TokenMoe final : public Layer {
 public:
  TokenMoe(ParameterStore& store, const std::string& name, std::int64_t block, TokenMoeSizes sizes,
           Activation activation, double dropout, std::unique_ptr<Router> router, ExpertExchange& exchange);

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  RouteCall call(Context& c) const;
  void make_plan(Context& c, TensorView x);
  void report(Context& c) const;
  // Rows of tokens, scaled by the plan's weight when asked, to rows of experts; and rows of experts to slots.
  void dispatch(Context& c, TensorView tokens, TensorView weight, TensorView rows);
  TensorView collect(Context& c, TensorView rows);

  std::int64_t block_;
  TokenMoeSizes sizes_;
  std::unique_ptr<Router> router_;
  FeedforwardExperts experts_;
  ExpertExchange& group_;
  TokenExchange exchange_;
  Dropout dropout_;
  RoutePlan plan_;
  TensorView answers_;  // [slots, width]
};

}  // namespace smlp
