// The gating unit over tokens: out = u * (W · LN(v) + b), one causal W and b for each part of the channels
// (a head, or an expert). u and v may be the same view, or columns of a wider one. With an activation a the unit is given
// what a is yet to be applied to, u' and v' with u = a(u') and v = a(v'): neither u nor v is ever written.
#pragma once

#include "layers/norm.h"

namespace smlp {

// First values of W and b (model.md: the unit starts as the identity gate).
ParameterSpec spatial_weight_spec(const std::string& name, std::int64_t length);
ParameterSpec spatial_bias_spec(const std::string& name, std::int64_t length);

class SpatialGate {
 public:
  SpatialGate(const LayerNorm& norm, Parameter& weight, Parameter& bias, Activation activation = Activation::none)
      : norm_(norm.after(activation)), weight_(weight), bias_(bias) {
    call_.activation = activation;
  }

  // Rows of `sequences` sequences of `length` tokens.
  void forward(Context& c, std::int64_t sequences, std::int64_t length, TensorView u, TensorView v,
               TensorView out);
  // When u and v are one view, du and dv are too: it receives the sum; there is no activation then.
  void backward(Context& c, TensorView dout, TensorView du, TensorView dv);

 private:
  LayerNorm norm_;
  Parameter& weight_;
  Parameter& bias_;
  Gating call_;        // of the last forward
  TensorView normed_;  // [sequences, length, channels]
};

}  // namespace smlp
