#include "layers/norm.h"

namespace smlp {

LayerNorm::LayerNorm(ParameterStore& store, const std::string& name, std::int64_t width)
    : weight_(&store.add(
          {.name = name + ".weight", .shape = {width}, .initial = Initial::ones(), .decay = false})),
      bias_(&store.add(
          {.name = name + ".bias", .shape = {width}, .initial = Initial::zeros(), .decay = false})) {}

namespace {
TensorView flat(const TensorView& view) { return view.reshaped({view.size()}); }
}  // namespace

void LayerNorm::forward(Context& c, TensorView x, TensorView y) {
  call_.x = x;
  if (x.rows() == 0) return;
  const Shape parts{x.rows(), call_.groups};
  call_.mean = c.scratch.take(parts, wide_type(x.dtype));
  call_.inverse_deviation = c.scratch.take(parts, wide_type(x.dtype));
  if (weight_ != nullptr) {
    call_.weight = flat(weight_->value);
    call_.bias = flat(bias_->value);
  }
  c.backend.layer_norm(call_, y);
}

void LayerNorm::backward(Context& c, TensorView dy, TensorView residual, TensorView dx) {
  if (dy.rows() == 0) return;
  const bool learned = weight_ != nullptr;
  c.backend.layer_norm_backward(call_, dy, residual, dx, learned ? flat(weight_->grad) : TensorView{},
                                learned ? flat(bias_->grad) : TensorView{});
}

}  // namespace smlp
