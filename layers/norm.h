// LayerNorm with what its backward pass needs, over rows or over equal parts of each row.
#pragma once

#include <string>

#include "layers/layer.h"
#include "params/parameter_store.h"

namespace smlp {

class LayerNorm final : public Layer {
 public:
  LayerNorm(ParameterStore& store, const std::string& name, std::int64_t width);
  // One norm an expert: `weight` and `bias` [experts, width] belong to parts of the row, in their order.
  LayerNorm(Parameter& weight, Parameter& bias) : weight_(&weight), bias_(&bias) {
    call_.groups = weight.shape[0];
  }
  // Nothing to learn: each of `parts` equal parts of the row is normalised.
  explicit LayerNorm(std::int64_t parts) { call_.groups = parts; }
  // The norm of a(x): rows are what the activation is yet to be applied to, dx is the gradient of that.
  LayerNorm after(Activation a) const {
    LayerNorm norm = *this;
    norm.call_.activation = a;
    return norm;
  }

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override { backward(c, dy, {}, dx); }
  // dx = backward(dy) + residual; dx may be dy or the residual.
  void backward(Context& c, TensorView dy, TensorView residual, TensorView dx);

 private:
  Parameter *weight_ = nullptr, *bias_ = nullptr;
  Normalisation call_;  // of the last forward
};

}  // namespace smlp
