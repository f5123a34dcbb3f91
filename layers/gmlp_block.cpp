#include "layers/gmlp_block.h"

namespace smlp {

namespace {

SpatialGate make_gate(ParameterStore& store, const std::string& name, const GmlpSizes& sizes,
                      Activation activation) {
  const LayerNorm norm(store, name + ".gate_norm", sizes.hidden / 2);
  ParameterSpec weight = spatial_weight_spec(name + ".spatial", sizes.context);
  weight.shape = {sizes.heads, sizes.context, sizes.context};
  ParameterSpec bias = spatial_bias_spec(name + ".spatial", sizes.context);
  bias.shape = {sizes.heads, sizes.context};
  Parameter& stored_weight = store.add(std::move(weight));
  return SpatialGate(norm, stored_weight, store.add(std::move(bias)), activation);
}

}  // namespace

GmlpBlock::GmlpBlock(ParameterStore& store, const std::string& name, GmlpSizes sizes, Activation activation,
                     double dropout)
    : half_(sizes.hidden / 2),
      norm_(store, name + ".norm", sizes.width),
      in_weight_(store.add({.name = name + ".in.weight",
                            .shape = {sizes.hidden, sizes.width},
                            .initial = Initial::xavier(sizes.width, sizes.hidden)})),
      in_bias_(
          store.add({.name = name + ".in.bias", .shape = {sizes.hidden}, .initial = {}, .decay = false})),
      gate_(make_gate(store, name, sizes, activation)),
      out_weight_(store.add({.name = name + ".out.weight",
                             .shape = {sizes.width, half_},
                             .initial = Initial::xavier(half_, sizes.width)})),
      out_bias_(
          store.add({.name = name + ".out.bias", .shape = {sizes.width}, .initial = {}, .decay = false})),
      dropout_(name, dropout) {}

void GmlpBlock::forward(Context& c, TensorView x, TensorView y) {
  const std::int64_t rows = x.rows(), hidden = 2 * half_;
  if (rows == 0) return;
  normed_ = c.scratch.take({rows, x.width()}, x.dtype);
  norm_.forward(c, x, normed_);
  const TensorView before = c.scratch.take({rows, hidden}, x.dtype);  // the activation, which the gate applies
  c.backend.matmul(
      {.a = normed_, .b = in_weight_.value, .out = before, .transpose_b = true, .bias = in_bias_.value});
  gated_ = c.scratch.take({rows, half_}, x.dtype);
  gate_.forward(c, c.sequences, c.length, before.column_range(0, half_),
                before.column_range(half_, half_), gated_);
  const bool dropping = dropout_.active(c);
  c.backend.matmul({.a = gated_,
                    .b = out_weight_.value,
                    .out = y,
                    .transpose_b = true,
                    .bias = out_bias_.value,
                    .residual = dropping ? TensorView{} : x});
  if (dropping) dropout_.join(c, y, x, y);
}

void GmlpBlock::backward(Context& c, TensorView dy, TensorView dx) {
  const std::int64_t rows = dy.rows();
  if (rows == 0) return;
  const Arena::Frame frame(c.scratch);
  const TensorView dhidden = c.scratch.take({rows, 2 * half_}, dy.dtype);
  {
    const Arena::Frame inner(c.scratch);
    const TensorView dbranch = dropout_.gradient(c, dy);
    c.backend.matmul({.a = dbranch,
                      .b = gated_,
                      .out = out_weight_.grad,
                      .transpose_a = true,
                      .accumulate = true,
                      .bias_gradient = out_bias_.grad});
    const TensorView dgated = gated_;  // in its place: it was read for the last time
    c.backend.matmul({.a = dbranch, .b = out_weight_.value, .out = dgated});
    gate_.backward(c, dgated, dhidden.column_range(0, half_), dhidden.column_range(half_, half_));
  }
  c.backend.matmul({.a = dhidden,
                    .b = normed_,
                    .out = in_weight_.grad,
                    .transpose_a = true,
                    .accumulate = true,
                    .bias_gradient = in_bias_.grad});
  const TensorView dnormed = normed_;  // in its place
  c.backend.matmul({.a = dhidden, .b = in_weight_.value, .out = dnormed});
  norm_.backward(c, dnormed, dy, dx);
}

}  // namespace smlp
