// The end of a language model: final norm, output projection tied with the embedding, cross entropy. Logits
// exist for a chunk of rows at a time, and become their own gradient in place.
#pragma once

#include <string>

#include "layers/norm.h"

namespace smlp {

class LossHead {
 public:
  LossHead(ParameterStore& store, const std::string& name, Parameter& table);

  // row_loss (f64 [rows]) is written. Training: the table's gradient and that of the normalised rows too.
  void forward_loss(Context& c, TensorView x, TensorView row_loss);
  void backward(Context& c, TensorView dx);
  // Logits of the rows named by `rows` (i32; -1: zeros).
  void forward_logits(Context& c, TensorView x, TensorView rows, TensorView logits);

 private:
  LayerNorm norm_;
  Parameter& table_;
  TensorView dnormed_;
};

}  // namespace smlp
