// sMoE, deterministic: chunk e of the normalised channels of every sequence goes to expert e, which gates it
// over the tokens with itself; x + all chunks put together again.
#pragma once

#include <string>

#include "layers/dropout.h"
#include "layers/exchange.h"
#include "layers/spatial_gate.h"

namespace smlp {

class ChannelMoe final : public Layer {
 public:
  ChannelMoe(ParameterStore& store, const std::string& name, std::int64_t width, std::int64_t context,
             std::int64_t experts, double dropout, ExpertExchange& exchange);

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  ExpertExchange& group_;
  ColumnExchange exchange_;
  LayerNorm norm_;
  SpatialGate experts_;
  Dropout dropout_;
};

}  // namespace smlp
