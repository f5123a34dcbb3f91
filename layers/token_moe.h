// Tokens among experts: each goes to the experts that the router chose, and x gains what comes back, weighted. A token
// without a place keeps x. Routing decides, the exchange moves, this layer joins the two.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "layers/dropout.h"
#include "layers/experts.h"
#include "layers/norm.h"
#include "layers/token_shuffle.h"
#include "routing/agreement.h"
#include "routing/router.h"

namespace smlp {

struct TokenMoeParts {
  std::optional<LayerNorm> norm;  // in front of router and experts; none: they see x (experts with a norm of their own)
  std::unique_ptr<Router> router;
  std::unique_ptr<Experts> experts;
  bool shuffle = false;  // rows are mixed among the ranks of a group before they are assigned in training
};

class TokenMoe final : public Layer {
 public:
  TokenMoe(std::string name, std::int64_t block, std::int64_t group_sequences, double dropout, TokenMoeParts parts,
           ExpertExchange& exchange);

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  RouteCall call(Context& c) const;
  void make_plan(Context& c, TensorView x);
  void report(Context& c);
  std::span<const std::int64_t> count_tokens(Context& c);
  void compare_with_training(Context& c, TensorView x);
  // y = dropout(answers) + x, with the answers brought back to the tokens that they are for.
  void join(Context& c, TensorView x, TensorView y);
  // Rows of tokens, scaled by the plan's weight when asked, to rows of experts; and rows of experts to slots.
  void dispatch(Context& c, TensorView tokens, TensorView weight, TensorView rows);
  TensorView collect(Context& c, TensorView rows);

  std::int64_t block_, group_sequences_;
  TokenMoeParts parts_;
  ExpertExchange& group_;
  TokenExchange exchange_;
  TokenShuffle shuffle_;
  Dropout dropout_;
  RoutePlan plan_, trained_;  // trained_: what training would do, for comparison
  PlanComparison comparison_;
  TensorView answers_;  // [slots, width]
  std::vector<std::int64_t> tokens_;         // of each expert, as count_tokens() found them
  std::vector<std::int32_t> token_of_slot_;  // on the host
};

}  // namespace smlp
