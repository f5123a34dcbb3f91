// Dropout of a branch before it joins the residual stream. A mask is a function of (seed, step, name, place
// in the global batch): the same on any layout, and made again, not kept, for the backward pass. Step and place are read
// where Context::stand_at() put them.
#pragma once

#include <string>

#include "core/random.h"
#include "layers/layer.h"

namespace smlp {

class Dropout {
 public:
  Dropout(std::string name, double rate) : name_(std::move(name)), rate_(rate) {}

  bool active(const Context& c) const noexcept { return rate_ > 0 && c.training() && c.rows() > 0; }

  // May be in place. The same for values and for gradients.
  void apply(Context& c, TensorView in, TensorView out) const {
    c.backend.dropout(in, rate_, RandomStream(c.seed, name_).key(), c.place, out);
  }

  // The gradient of the branch: dy itself where nothing was dropped.
  TensorView gradient(Context& c, TensorView dy) const {
    if (!active(c)) return dy;
    const TensorView masked = c.scratch.take(dy.shape, dy.dtype);
    apply(c, dy, masked);
    return masked;
  }

 private:
  std::string name_;
  double rate_;
};

}  // namespace smlp
