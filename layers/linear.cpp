#include "layers/linear.h"

namespace smlp {

Linear::Linear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out)
    : weight_(store.add(
          {.name = name + ".weight", .shape = {out, in}, .initial = Initial::xavier(in, out)})),
      bias_(store.add({.name = name + ".bias", .shape = {out}, .initial = {}, .decay = false})) {}

void Linear::forward(Context& c, TensorView x, TensorView y, const Epilogue& epilogue) const {
  c.backend.matmul({.a = x,
                    .b = weight_.value,
                    .out = y,
                    .transpose_b = true,
                    .bias = bias_.value,
                    .residual = epilogue.residual,
                    .activation = epilogue.activation,
                    .pre_activation = epilogue.pre_activation});
}

void Linear::add_gradients(Context& c, TensorView x, TensorView dy) const {
  c.backend.matmul({.a = dy,
                    .b = x,
                    .out = weight_.grad,
                    .transpose_a = true,
                    .accumulate = true,
                    .bias_gradient = bias_.grad});
}

void Linear::backward_input(Context& c, TensorView dy, TensorView dx, const Activated& x) const {
  c.backend.matmul({.a = dy,
                    .b = weight_.value,
                    .out = dx,
                    .activation = x.activation,
                    .pre_activation = x.pre_activation,
                    .activation_backward = true});
}

}  // namespace smlp
