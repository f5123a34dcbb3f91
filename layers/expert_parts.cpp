#include "layers/expert_parts.h"

#include <algorithm>
#include <functional>

#include "layers/norm.h"

namespace smlp {

namespace {

// Then one call does for all experts, where a device would be busy with starting them.
bool alike(ExpertRows rows) { return std::ranges::adjacent_find(rows, std::not_equal_to{}) == rows.end(); }

}  // namespace

ExpertNorm::ExpertNorm(ParameterStore& store, const std::string& name, std::int64_t width,
                       const ExpertExchange& exchange)
    : weight_(store.add(exchange.slice_of(
          {.name = name + ".weight", .shape = {width}, .initial = Initial::ones(), .decay = false}))),
      bias_(store.add(
          exchange.slice_of({.name = name + ".bias", .shape = {width}, .initial = {}, .decay = false}))) {}

void ExpertNorm::forward(Context& c, ExpertRows rows, TensorView x, TensorView y) {
  x_ = x;
  mean_ = c.scratch.take({x.rows(), 1}, wide_type(x.dtype));
  inverse_deviation_ = c.scratch.take({x.rows(), 1}, wide_type(x.dtype));
  if (alike(rows)) return c.backend.layer_norm(of_all(), y);
  each_expert(rows, [&](std::int64_t e, std::int64_t first, std::int64_t count) {
    c.backend.layer_norm(of_expert(e, first, count), y.row_range(first, count));
  });
}

void ExpertNorm::backward(Context& c, ExpertRows rows, TensorView dy, TensorView dx) {
  if (alike(rows)) return c.backend.layer_norm_backward(of_all(), dy, {}, dx, weight_.grad, bias_.grad);
  each_expert(rows, [&](std::int64_t e, std::int64_t first, std::int64_t count) {
    c.backend.layer_norm_backward(of_expert(e, first, count), dy.row_range(first, count), {}, dx.row_range(first, count),
                                  weight_.grad.slice(e), bias_.grad.slice(e));
  });
}

Normalisation ExpertNorm::of_all() const {
  return {.x = x_, .weight = weight_.value, .bias = bias_.value, .mean = mean_, .inverse_deviation = inverse_deviation_};
}

Normalisation ExpertNorm::of_expert(std::int64_t expert, std::int64_t first, std::int64_t count) const {
  return {.x = x_.row_range(first, count),
          .weight = weight_.value.slice(expert),
          .bias = bias_.value.slice(expert),
          .mean = mean_.row_range(first, count),
          .inverse_deviation = inverse_deviation_.row_range(first, count)};
}

ExpertLinear::ExpertLinear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out,
                           Initial initial, const ExpertExchange& exchange)
    : weight_(store.add(
          exchange.slice_of({.name = name + ".weight", .shape = {out, in}, .initial = initial}))),
      bias_(store.add(
          exchange.slice_of({.name = name + ".bias", .shape = {out}, .initial = {}, .decay = false}))) {}

void ExpertLinear::forward(Context& c, ExpertRows rows, TensorView x, TensorView y,
                           const Epilogue& epilogue) const {
  c.backend.matmul_grouped({.a = x,
                            .b = weight_.value,
                            .out = y,
                            .transpose_b = true,
                            .bias = bias_.value,
                            .residual = epilogue.residual,
                            .activation = epilogue.activation,
                            .pre_activation = epilogue.pre_activation},
                           rows);
}

void ExpertLinear::add_gradients(Context& c, ExpertRows rows, TensorView x, TensorView dy) const {
  c.backend.matmul_grouped({.a = dy,
                            .b = x,
                            .out = weight_.grad,
                            .transpose_a = true,
                            .accumulate = true,
                            .bias_gradient = bias_.grad},
                           rows);
}

void ExpertLinear::backward_input(Context& c, ExpertRows rows, TensorView dy, TensorView dx,
                                  const Activated& x) const {
  c.backend.matmul_grouped({.a = dy,
                            .b = weight_.value,
                            .out = dx,
                            .activation = x.activation,
                            .pre_activation = x.pre_activation,
                            .activation_backward = true},
                           rows);
}

}  // namespace smlp
