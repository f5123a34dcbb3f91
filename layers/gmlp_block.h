// The dense block of gMLP: x + W_out · (u * (W_s · LN(v) + b_s)), u and v the halves of act(W_in · LN(x)).
#pragma once

#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/spatial_gate.h"

namespace smlp {

struct GmlpSizes {
  std::int64_t width, hidden, context, heads = 1;
};

class GmlpBlock final : public Layer {
 public:
  GmlpBlock(ParameterStore& store, const std::string& name, GmlpSizes sizes, Activation activation,
            double dropout);

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  std::int64_t half_;
  LayerNorm norm_;
  Linear in_;
  SpatialGate gate_;
  Linear out_;
  Dropout dropout_;
  TensorView normed_, gated_;
};

}  // namespace smlp
