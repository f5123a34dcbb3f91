#include "layers/gmlp_experts.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace smlp {

namespace {

Parameter& add_spatial(ParameterStore& store, ParameterSpec of_head, std::int64_t heads,
                       const ExpertExchange& exchange) {
  of_head.shape = of_head.shape.stacked(heads);
  return store.add(exchange.slice_of(std::move(of_head)));
}

}  // namespace

GmlpExperts::GmlpExperts(ParameterStore& store, const std::string& name, GmlpSizes sizes,
                         Activation activation, const ExpertExchange& exchange)
    : exchange_(exchange),
      half_(sizes.hidden / 2),
      activation_(activation),
      norm_(store, name + ".norm", sizes.width, exchange),
      in_(store, name + ".in", sizes.width, sizes.hidden, Initial::xavier(sizes.width, sizes.hidden), exchange),
      gate_norm_(store, name + ".gate_norm", half_, exchange),
      spatial_weight_(
          add_spatial(store, spatial_weight_spec(name + ".spatial", sizes.context), sizes.heads, exchange)),
      spatial_bias_(
          add_spatial(store, spatial_bias_spec(name + ".spatial", sizes.context), sizes.heads, exchange)),
      out_(store, name + ".out", half_, sizes.width, Initial::zeros(), exchange) {}

void GmlpExperts::remember_places(Context& c, std::span<const std::int32_t> places) {
  const std::int64_t all = exchange_.all_sequences() * exchange_.length();
  place_of_row_ = c.scratch.take({static_cast<std::int64_t>(places.size())}, DType::i32);
  row_of_place_ = c.scratch.take({static_cast<std::int64_t>(rows_.size()), all}, DType::i32);
  c.backend.upload(places.data(), place_of_row_);
  // Of one expert after the other: of all of a large job's, also of one that is only planned, the host has no room.
  each_expert(rows_, [&](std::int64_t e, std::int64_t first, std::int64_t count) {
    drawn_up_.assign(static_cast<std::size_t>(all), -1);
    for (std::int64_t r = 0; r < count; ++r) {
      const std::int32_t place = places[static_cast<std::size_t>(first + r)];
      if (place >= 0) drawn_up_[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(r);
    }
    c.backend.upload(drawn_up_.data(), row_of_place_.slice(e));
  });
}

TensorView GmlpExperts::spread(Context& c, std::int64_t expert, TensorView rows) const {
  const TensorView index = row_of_place_.slice(expert);
  const TensorView all = c.scratch.take({index.size(), rows.width()}, rows.dtype);
  c.backend.gather_rows(rows, index, 1, {}, all);
  return all.reshaped({exchange_.all_sequences(), exchange_.length(), rows.width()});
}

void GmlpExperts::gather(Context& c, std::int64_t first, std::int64_t count, TensorView spread,
                         TensorView rows) const {
  c.backend.gather_rows(spread.reshaped({spread.rows(), spread.width()}), place_of_row_.row_range(first, count),
                        1, {}, rows.row_range(first, count));
}

void GmlpExperts::forward(Context& c, ExpertRows rows, std::span<const std::int32_t> places, TensorView x,
                          TensorView y) {
  rows_.assign(rows.begin(), rows.end());
  const std::int64_t count = x.rows(), length = exchange_.length();
  if (count == 0) return;
  remember_places(c, places);
  normed_ = c.scratch.take({count, x.width()}, x.dtype);
  norm_.forward(c, rows_, x, normed_);
  pre_activation_ = c.training() ? c.scratch.take({count, 2 * half_}, x.dtype) : TensorView{};
  activated_ = c.scratch.take({count, 2 * half_}, x.dtype);
  in_.forward(c, rows_, normed_, activated_, {.activation = activation_, .pre_activation = pre_activation_});
  const TensorView u = activated_.column_range(0, half_), v = activated_.column_range(half_, half_);
  const Shape halves{count, half_};
  gate_normed_ = c.scratch.take(halves, x.dtype);
  gate_norm_.forward(c, rows_, v, gate_normed_);
  gate_ = c.scratch.take(halves, x.dtype);
  gated_ = c.scratch.take(halves, x.dtype);
  each_expert(rows_, [&](std::int64_t e, std::int64_t first, std::int64_t of_expert) {
    const Arena::Frame frame(c.scratch);
    const TensorView v_all = spread(c, e, gate_normed_.row_range(first, of_expert));
    const TensorView u_all = spread(c, e, u.row_range(first, of_expert));
    const TensorView gate_all = c.scratch.take(v_all.shape, x.dtype);
    c.backend.spatial({.weight = spatial_weight_.value.slice(e), .v = v_all, .out = gate_all});
    const TensorView gated_all = v_all;  // in its place
    c.backend.gate({u_all, gate_all, spatial_bias_.value.slice(e).column_range(0, length), gated_all});
    gather(c, first, of_expert, gate_all, gate_);
    gather(c, first, of_expert, gated_all, gated_);
  });
  out_.forward(c, rows_, gated_, y);
}

void GmlpExperts::backward(Context& c, TensorView dy, TensorView dx) {
  const std::int64_t count = dy.rows(), length = exchange_.length();
  if (count == 0) return;
  const Arena::Frame frame(c.scratch);
  out_.add_gradients(c, rows_, gated_, dy);
  const TensorView dgated = gated_;  // in its place: it was read for the last time
  out_.backward_input(c, rows_, dy, dgated);
  const TensorView dhidden = c.scratch.take({count, 2 * half_}, dy.dtype);
  const TensorView u = activated_.column_range(0, half_);
  const TensorView du = dhidden.column_range(0, half_), dv = dhidden.column_range(half_, half_);
  each_expert(rows_, [&](std::int64_t e, std::int64_t first, std::int64_t of_expert) {
    const Arena::Frame inner(c.scratch);
    const TensorView u_all = spread(c, e, u.row_range(first, of_expert));
    const TensorView gate_all = spread(c, e, gate_.row_range(first, of_expert));
    const TensorView dgated_all = spread(c, e, dgated.row_range(first, of_expert));
    const TensorView v_all = spread(c, e, gate_normed_.row_range(first, of_expert));
    const TensorView du_all = c.scratch.take(u_all.shape, dy.dtype);
    const TensorView dgate_all = gate_all;  // in its place
    c.backend.gate_backward({u_all, gate_all, spatial_bias_.value.slice(e).column_range(0, length)}, dgated_all,
                            du_all, dgate_all, spatial_bias_.grad.slice(e).column_range(0, length));
    c.backend.spatial_backward_weight({.weight = spatial_weight_.grad.slice(e), .v = v_all, .out = dgate_all});
    const TensorView dv_all = dgated_all;  // in its place
    c.backend.spatial_backward_input({.weight = spatial_weight_.value.slice(e), .v = dv_all, .out = dgate_all});
    gather(c, first, of_expert, du_all, du);
    gather(c, first, of_expert, dv_all, gate_normed_);
  });
  gate_norm_.backward(c, rows_, gate_normed_, dv);
  c.backend.activate_backward(activation_, pre_activation_, dhidden, dhidden);
  in_.add_gradients(c, rows_, normed_, dhidden);
  const TensorView dnormed = normed_;  // in its place
  in_.backward_input(c, rows_, dhidden, dnormed);
  norm_.backward(c, rows_, dnormed, dx);
}

}  // namespace smlp
