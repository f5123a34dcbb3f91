#include "layers/gmlp_block.h"

namespace smlp {

namespace {

SpatialGate make_gate(ParameterStore& store, const std::string& name, const GmlpSizes& sizes,
                      Activation activation) {
  const LayerNorm norm(store, name + ".gate_norm", sizes.hidden / 2);
  ParameterSpec weight = spatial_weight_spec(name + ".spatial", sizes.context);
  weight.shape = weight.shape.stacked(sizes.heads);
  ParameterSpec bias = spatial_bias_spec(name + ".spatial", sizes.context);
  bias.shape = bias.shape.stacked(sizes.heads);
  Parameter& stored_weight = store.add(std::move(weight));
  return SpatialGate(norm, stored_weight, store.add(std::move(bias)), activation);
}

}  // namespace

GmlpBlock::GmlpBlock(ParameterStore& store, const std::string& name, GmlpSizes sizes, Activation activation,
                     double dropout)
    : half_(sizes.hidden / 2),
      norm_(store, name + ".norm", sizes.width),
      in_(store, name + ".in", sizes.width, sizes.hidden),
      gate_(make_gate(store, name, sizes, activation)),
      out_(store, name + ".out", half_, sizes.width),
      dropout_(name, dropout) {}

void GmlpBlock::forward(Context& c, TensorView x, TensorView y) {
  const std::int64_t rows = x.rows(), hidden = 2 * half_;
  if (rows == 0) return;
  normed_ = c.scratch.take({rows, x.width()}, x.dtype);
  norm_.forward(c, x, normed_);
  const TensorView before = c.scratch.take({rows, hidden}, x.dtype);  // the activation, which the gate applies
  in_.forward(c, normed_, before);
  gated_ = c.scratch.take({rows, half_}, x.dtype);
  gate_.forward(c, c.sequences, c.length, before.column_range(0, half_),
                before.column_range(half_, half_), gated_);
  const bool dropping = dropout_.active(c);
  out_.forward(c, gated_, y, {.residual = dropping ? TensorView{} : x});
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
    out_.add_gradients(c, gated_, dbranch);
    const TensorView dgated = gated_;  // in its place: it was read for the last time
    out_.backward_input(c, dbranch, dgated);
    gate_.backward(c, dgated, dhidden.column_range(0, half_), dhidden.column_range(half_, half_));
  }
  in_.add_gradients(c, normed_, dhidden);
  const TensorView dnormed = normed_;  // in its place
  in_.backward_input(c, dhidden, dnormed);
  norm_.backward(c, dnormed, dy, dx);
}

}  // namespace smlp
