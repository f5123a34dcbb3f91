// sMoE with a router over the channels. Partial prediction: the router sees the first fifth of a sequence, the experts
// gate what follows it, and the first fifth passes unchanged; x gains p · n ⊙ (W_e · LN(n) + b_e), LN over the expert's
// channels of that sequence without weights (the set changes from sequence to sequence). Leaky: the router sees the
// whole sequence, and the experts gate all of it; such a model sees the future and is for study alone.
#pragma once

#include <string>

#include "layers/dropout.h"
#include "layers/exchange.h"
#include "layers/spatial_gate.h"
#include "routing/channel_router.h"

namespace smlp {

class RoutedChannelMoe final : public Layer {
 public:
  RoutedChannelMoe(ParameterStore& store, const std::string& name, std::int64_t width, std::int64_t context,
                   std::int64_t experts, bool leaky, double dropout, ExpertExchange& exchange);

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  std::int64_t gated_length() const;  // tokens of each sequence that the experts see; 0: all pass unchanged
  TensorView gated_part(const Context& c, const TensorView& rows) const;

  std::int64_t first_;  // position from which the experts gate
  ExpertExchange& group_;
  ColumnExchange exchange_;
  LayerNorm norm_;
  ChannelRouter router_;
  SpatialGate experts_;
  Dropout dropout_;
  ChannelPlan plan_;
  TensorView answers_;  // [sequences, gated length, channels in order of the slots]
};

}  // namespace smlp
