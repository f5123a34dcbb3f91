#include "layers/norm.h"

namespace smlp {

LayerNorm::LayerNorm(ParameterStore& store, const std::string& name, std::int64_t width)
    : weight_(store.add(
          {.name = name + ".weight", .shape = {width}, .initial = Initial::ones(), .decay = false})),
      bias_(store.add(
          {.name = name + ".bias", .shape = {width}, .initial = Initial::zeros(), .decay = false})) {}

void LayerNorm::forward(Context& c, TensorView x, TensorView y) {
  x_ = x;
  if (x.rows() == 0) return;
  const Shape parts{x.rows(), groups()};
  mean_ = c.scratch.take(parts, wide_type(x.dtype));
  inverse_deviation_ = c.scratch.take(parts, wide_type(x.dtype));
  const Shape flat{weight_.value.size()};
  c.backend.layer_norm(x, weight_.value.reshaped(flat), bias_.value.reshaped(flat), groups(), y, mean_,
                       inverse_deviation_);
}

void LayerNorm::backward(Context& c, TensorView dy, TensorView residual, TensorView dx) {
  if (dy.rows() == 0) return;
  const Shape flat{weight_.value.size()};
  c.backend.layer_norm_backward(x_, weight_.value.reshaped(flat), groups(), mean_, inverse_deviation_, dy,
                                residual, dx, weight_.grad.reshaped(flat), bias_.grad.reshaped(flat));
}

}  // namespace smlp
