#include "layers/spatial_gate.h"

namespace smlp {

namespace {
// [rows, width], rows perhaps strided, as [sequences, length, width].
TensorView by_sequence(const TensorView& rows, std::int64_t sequences, std::int64_t length) {
  TensorView view = rows;
  view.shape = {sequences, length, rows.width()};
  view.stride = {rows.row_stride() * length, rows.row_stride(), 1, 0};
  return view;
}
}  // namespace

ParameterSpec spatial_weight_spec(const std::string& name, std::int64_t length) {
  return {.name = name + ".weight",
          .shape = {length, length},
          .initial = Initial::uniform(1e-3 / static_cast<double>(length)),
          .lower_triangle = true};
}

ParameterSpec spatial_bias_spec(const std::string& name, std::int64_t length) {
  return {.name = name + ".bias", .shape = {length}, .initial = Initial::ones(), .decay = false};
}

TensorView SpatialGate::bias_of(const TensorView& like) const { return like.column_range(0, u_.shape[1]); }

void SpatialGate::forward(Context& c, std::int64_t sequences, std::int64_t length, TensorView u, TensorView v,
                          TensorView out) {
  u_ = by_sequence(u, sequences, length);
  if (u.rows() == 0) return;
  const TensorView normed = c.scratch.take({v.rows(), v.width()}, v.dtype);
  norm_.forward(c, v, normed);
  normed_ = by_sequence(normed, sequences, length);
  gate_ = c.scratch.take(u_.shape, u.dtype);
  c.backend.spatial({.weight = weight_.value, .v = normed_, .out = gate_});
  c.backend.gate(u_, gate_, bias_of(bias_.value), by_sequence(out, sequences, length));
}

void SpatialGate::backward(Context& c, TensorView dout, TensorView du, TensorView dv) {
  const std::int64_t sequences = u_.shape[0], length = u_.shape[1];
  if (dout.rows() == 0) return;
  const TensorView dgate = gate_;  // in place: the gate is not read again
  c.backend.gate_backward(u_, gate_, by_sequence(dout, sequences, length), by_sequence(du, sequences, length),
                          dgate, bias_of(bias_.grad));
  c.backend.spatial_backward_weight({.weight = weight_.grad, .v = normed_, .out = dgate});
  const bool one_view = du.data == dv.data;
  const Arena::Frame frame(c.scratch);
  const TensorView dnormed = c.scratch.take({dv.rows(), dv.width()}, dv.dtype);
  c.backend.spatial_backward_input(
      {.weight = weight_.value, .v = by_sequence(dnormed, sequences, length), .out = dgate});
  norm_.backward(c, dnormed, one_view ? du : TensorView{}, dv);
}

}  // namespace smlp
