#include "layers/channel_moe.h"

#include <fmt/format.h>

#include "core/error.h"

namespace smlp {

namespace {

SpatialGate make_experts(ParameterStore& store, const std::string& name, std::int64_t chunk,
                         std::int64_t context, const ExpertExchange& exchange) {
  Parameter& norm_weight = store.add(exchange.slice_of(
      {.name = name + ".norm.weight", .shape = {chunk}, .initial = Initial::ones(), .decay = false}));
  Parameter& norm_bias = store.add(
      exchange.slice_of({.name = name + ".norm.bias", .shape = {chunk}, .initial = {}, .decay = false}));
  Parameter& weight = store.add(exchange.slice_of(spatial_weight_spec(name + ".spatial", context)));
  Parameter& bias = store.add(exchange.slice_of(spatial_bias_spec(name + ".spatial", context)));
  return SpatialGate(LayerNorm(norm_weight, norm_bias), weight, bias);
}

}  // namespace

ChannelMoe::ChannelMoe(ParameterStore& store, const std::string& name, std::int64_t width,
                       std::int64_t context, std::int64_t experts, double dropout, ExpertExchange& exchange)
    : exchange_(exchange),
      chunk_width_(width / exchange.members()),
      norm_(store, name + ".norm", width),
      experts_(make_experts(store, name + ".experts", width / experts, context, exchange)),
      dropout_(name, dropout) {
  expect(width % experts == 0, fmt::format("{} channels cannot be cut into {} equal chunks", width, experts));
}

std::vector<std::int64_t> ChannelMoe::rows_of_members() const {
  std::vector<std::int64_t> rows;
  for (const std::int64_t sequences : exchange_.sequences()) rows.push_back(sequences * exchange_.length());
  return rows;
}

TensorView ChannelMoe::take_chunk(Context& c, DType type) const {
  return c.scratch.take({exchange_.all_sequences() * exchange_.length(), chunk_width_}, type);
}

void ChannelMoe::to_experts(Context& c, TensorView columns, TensorView chunk) {
  const Arena::Frame frame(c.scratch);
  const std::int64_t rows = columns.rows(), members = exchange_.members();
  const TensorView packed = c.scratch.take({members * rows, chunk_width_}, columns.dtype);
  for (std::int64_t p = 0; p < members && rows > 0; ++p) {
    c.backend.copy(columns.column_range(p * chunk_width_, chunk_width_), packed.row_range(p * rows, rows));
  }
  const std::vector<std::int64_t> mine(static_cast<std::size_t>(members), rows);
  exchange_.all_to_all(c, packed, mine, chunk, rows_of_members());
}

void ChannelMoe::from_experts(Context& c, TensorView chunk, TensorView columns) {
  const Arena::Frame frame(c.scratch);
  const std::int64_t rows = columns.rows(), members = exchange_.members();
  const TensorView packed = c.scratch.take({members * rows, chunk_width_}, columns.dtype);
  const std::vector<std::int64_t> mine(static_cast<std::size_t>(members), rows);
  exchange_.all_to_all(c, chunk, rows_of_members(), packed, mine);
  for (std::int64_t p = 0; p < members && rows > 0; ++p) {
    c.backend.copy(packed.row_range(p * rows, rows), columns.column_range(p * chunk_width_, chunk_width_));
  }
}

void ChannelMoe::forward(Context& c, TensorView x, TensorView y) {
  const bool alone = exchange_.alone();
  const TensorView chunk = take_chunk(c, x.dtype);
  const TensorView normed = alone ? chunk : y;  // y is free until the answers come back
  norm_.forward(c, x, normed);
  if (!alone) to_experts(c, normed, chunk);
  const TensorView answer = alone ? y : take_chunk(c, x.dtype);
  experts_.forward(c, exchange_.all_sequences(), exchange_.length(), chunk, chunk, answer);
  if (!alone) from_experts(c, answer, y);
  if (x.rows() == 0) return;
  if (dropout_.active(c)) dropout_.apply(c, y, y);
  c.backend.add(y, x, y);
}

void ChannelMoe::backward(Context& c, TensorView dy, TensorView dx) {
  const Arena::Frame frame(c.scratch);
  const bool alone = exchange_.alone();
  const TensorView dbranch = dropout_.gradient(c, dy);
  const TensorView dchunk = take_chunk(c, dy.dtype);
  TensorView danswer = dbranch;
  if (!alone) {
    danswer = take_chunk(c, dy.dtype);
    to_experts(c, dbranch, danswer);
  }
  experts_.backward(c, danswer, dchunk, dchunk);
  if (!alone) from_experts(c, dchunk, dx);
  norm_.backward(c, alone ? dchunk : dx, dy, dx);
}

}  // namespace smlp
