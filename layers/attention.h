// The token mixing of a Transformer: x + W_o · attention(W_q · n, W_k · n, W_v · n), n = LN(x), causal, in heads.
#pragma once

#include "layers/dropout.h"
#include "layers/joined_linear.h"
#include "layers/linear.h"
#include "layers/norm.h"

namespace smlp {

class SelfAttention final : public Layer {
 public:
  SelfAttention(ParameterStore& store, const std::string& name, std::int64_t width, std::int64_t heads,
                double dropout);

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  std::int64_t heads_;
  LayerNorm norm_;
  JoinedLinear projections_;  // query, key and value
  Linear out_;
  Dropout dropout_;
  TensorView normed_, mixed_;
  Attention call_;  // of the last forward
};

}  // namespace smlp
