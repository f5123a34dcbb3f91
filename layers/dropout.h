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
  void apply(Context& c, TensorView in, TensorView out) const { c.backend.dropout(in, rate_, key(c), c.place, {}, out); }

  // y = x + branch, of which some is dropped while it is active; y may be the branch.
  void join(Context& c, TensorView branch, TensorView x, TensorView y) const {
    if (!active(c)) return c.backend.add(branch, x, y);
    c.backend.dropout(branch, rate_, key(c), c.place, x, y);
  }

  // The gradient of the branch: dy itself where nothing was dropped.
  TensorView gradient(Context& c, TensorView dy) const {
    if (!active(c)) return dy;
    const TensorView masked = c.scratch.take(dy.shape, dy.dtype);
    apply(c, dy, masked);
    return masked;
  }

 private:
  std::uint64_t key(const Context& c) const { return RandomStream(c.seed, name_).key(); }

  std::string name_;
  double rate_;
};

}  // namespace smlp
