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

void SpatialGate::forward(Context& c, std::int64_t sequences, std::int64_t length, TensorView u, TensorView v,
                          TensorView out) {
  call_.u = by_sequence(u, sequences, length);
  if (u.rows() == 0) return;
  const TensorView normed = c.scratch.take({v.rows(), v.width()}, v.dtype);
  norm_.forward(c, v, normed);
  normed_ = by_sequence(normed, sequences, length);
  call_.z = c.scratch.take(call_.u.shape, u.dtype);
  call_.bias = bias_.value.column_range(0, length);
  call_.out = by_sequence(out, sequences, length);
  c.backend.spatial({.weight = weight_.value, .v = normed_, .out = call_.z});
  c.backend.gate(call_);
}

void SpatialGate::backward(Context& c, TensorView dout, TensorView du, TensorView dv) {
  const std::int64_t sequences = call_.u.shape[0], length = call_.u.shape[1];
  if (dout.rows() == 0) return;
  const TensorView dz = call_.z;  // in place: it is not read again
  c.backend.gate_backward(call_, by_sequence(dout, sequences, length), by_sequence(du, sequences, length), dz,
                          bias_.grad.column_range(0, length));
  c.backend.spatial_backward_weight({.weight = weight_.grad, .v = normed_, .out = dz});
  const bool one_view = du.data == dv.data;
  const Arena::Frame frame(c.scratch);
  const TensorView dnormed = c.scratch.take({dv.rows(), dv.width()}, dv.dtype);
  c.backend.spatial_backward_input(
      {.weight = weight_.value, .v = by_sequence(dnormed, sequences, length), .out = dz});
  norm_.backward(c, dnormed, one_view ? du : TensorView{}, dv);
}

}  // namespace smlp
