// The dense feed-forward part of a Transformer block: x + W_out · act(W_in · LN(x)).
#pragma once

#include "layers/dropout.h"
#include "layers/linear.h"
#include "layers/norm.h"

namespace smlp {

class FeedForward final : public Layer {
 public:
  FeedForward(ParameterStore& store, const std::string& name, std::int64_t width, std::int64_t hidden,
              Activation activation, double dropout);

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  std::int64_t hidden_;
  Activation activation_;
  LayerNorm norm_;
  Linear in_, out_;
  Dropout dropout_;
  TensorView normed_, pre_activation_, activated_;
};

}  // namespace smlp
