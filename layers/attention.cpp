#include "layers/attention.h"

namespace smlp {

namespace {

// Third `index` of rows [rows, 3 · width], by sequence.
TensorView third(const Context& c, const TensorView& rows, std::int64_t index) {
  TensorView part = rows.column_range(index * rows.width() / 3, rows.width() / 3);
  part.stride = {part.row_stride() * c.length, part.row_stride(), 1, 0};
  part.shape = {c.sequences, c.length, part.width()};
  return part;
}

}  // namespace

SelfAttention::SelfAttention(ParameterStore& store, const std::string& name, std::int64_t width,
                             std::int64_t heads, double dropout)
    : heads_(heads),
      norm_(store, name + ".norm", width),
      projections_(store, {name + ".query", name + ".key", name + ".value"}, width, width),
      out_(store, name + ".out", width, width),
      dropout_(name, dropout) {}

void SelfAttention::forward(Context& c, TensorView x, TensorView y) {
  const std::int64_t rows = x.rows(), width = x.width();
  if (rows == 0) return;
  normed_ = c.scratch.take({rows, width}, x.dtype);
  norm_.forward(c, x, normed_);
  const TensorView projected = c.scratch.take({rows, 3 * width}, x.dtype);
  projections_.forward(c, normed_, projected);
  mixed_ = c.scratch.take({rows, width}, x.dtype);
  call_ = {.query = third(c, projected, 0),
           .key = third(c, projected, 1),
           .value = third(c, projected, 2),
           .out = mixed_.reshaped({c.sequences, c.length, width}),
           .log_sum = c.scratch.take({c.sequences, heads_, c.length}, wide_type(x.dtype)),
           .heads = heads_};
  c.backend.attention(call_);
  const bool dropping = dropout_.active(c);
  out_.forward(c, mixed_, y, {.residual = dropping ? TensorView{} : x});
  if (dropping) dropout_.join(c, y, x, y);
}

void SelfAttention::backward(Context& c, TensorView dy, TensorView dx) {
  const std::int64_t rows = dy.rows(), width = dy.width();
  if (rows == 0) return;
  const Arena::Frame frame(c.scratch);
  const TensorView dprojected = c.scratch.take({rows, 3 * width}, dy.dtype);
  {
    const Arena::Frame inner(c.scratch);
    const TensorView dbranch = dropout_.gradient(c, dy);
    out_.add_gradients(c, mixed_, dbranch);
    const TensorView dmixed = c.scratch.take({rows, width}, dy.dtype);
    out_.backward_input(c, dbranch, dmixed);
    c.backend.attention_backward(call_, dmixed.reshaped(call_.out.shape), third(c, dprojected, 0),
                                 third(c, dprojected, 1), third(c, dprojected, 2));
  }
  projections_.add_gradients(c, normed_, dprojected);
  const TensorView dnormed = normed_;  // in its place: it was read for the last time
  projections_.backward_input(c, dprojected, dnormed);
  norm_.backward(c, dnormed, dy, dx);
}

}  // namespace smlp
