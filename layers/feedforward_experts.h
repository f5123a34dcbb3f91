// Feed-forward experts, each W2 · act(W1 · n) over its own rows; n is LN(x) with a norm of the expert's own, or x.
#pragma once

#include <optional>
#include <string>

#include "layers/experts.h"

namespace smlp {

class FeedforwardExperts final : public Experts {
 public:
  // With a norm of their own, experts start as nothing (W2 = 0), as BASE's do.
  FeedforwardExperts(ParameterStore& store, const std::string& name, std::int64_t width, std::int64_t hidden,
                     Activation activation, bool own_norm, const ExpertExchange& exchange);

  void forward(Context& c, ExpertRows rows, std::span<const std::int32_t> places, TensorView x,
               TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  std::int64_t hidden_;
  Activation activation_;
  std::optional<ExpertNorm> norm_;
  ExpertLinear in_, out_;
  std::vector<std::int64_t> rows_;
  TensorView normed_, pre_activation_, activated_;
};

}  // namespace smlp
