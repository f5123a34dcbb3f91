// The gating unit over tokens: out = u * (W · LN(v) + b), one causal W and b for each part of the channels
// (a head, or an expert). u and v may be the same view, or columns of a wider one.
#pragma once

#include "layers/norm.h"

namespace smlp {

// First values of W and b (model.md: the unit starts as the identity gate).
ParameterSpec spatial_weight_spec(const std::string& name, std::int64_t length);
ParameterSpec spatial_bias_spec(const std::string& name, std::int64_t length);

class SpatialGate {
 public:
  SpatialGate(LayerNorm norm, Parameter& weight, Parameter& bias)
      : norm_(norm), weight_(weight), bias_(bias) {}

  // Rows of `sequences` sequences of `length` tokens.
  void forward(Context& c, std::int64_t sequences, std::int64_t length, TensorView u, TensorView v,
               TensorView out);
  // When u and v are one view, du and dv are too: it receives the sum.
  void backward(Context& c, TensorView dout, TensorView du, TensorView dv);

 private:
  TensorView bias_of(const TensorView& like) const;  // the head of b, as long as the sequences are

  LayerNorm norm_;
  Parameter& weight_;
  Parameter& bias_;
  TensorView u_, normed_, gate_;  // [sequences, length, channels]
};

}  // namespace smlp
