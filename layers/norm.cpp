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
  x_ = x;
  if (x.rows() == 0) return;
  const Shape parts{x.rows(), parts_};
  mean_ = c.scratch.take(parts, wide_type(x.dtype));
  inverse_deviation_ = c.scratch.take(parts, wide_type(x.dtype));
  const bool learned = weight_ != nullptr;
  c.backend.layer_norm(x, learned ? flat(weight_->value) : TensorView{},
                       learned ? flat(bias_->value) : TensorView{}, parts_, y, mean_, inverse_deviation_);
}

void LayerNorm::backward(Context& c, TensorView dy, TensorView residual, TensorView dx) {
  if (dy.rows() == 0) return;
  const bool learned = weight_ != nullptr;
  c.backend.layer_norm_backward(x_, learned ? flat(weight_->value) : TensorView{}, parts_, mean_, inverse_deviation_,
                                dy, residual, dx, learned ? flat(weight_->grad) : TensorView{},
                                learned ? flat(bias_->grad) : TensorView{});
}

}  // namespace smlp
