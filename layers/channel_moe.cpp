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
    : group_(exchange),
      exchange_(exchange, width),
      norm_(store, name + ".norm", width),
      experts_(make_experts(store, name + ".experts", width / experts, context, exchange)),
      dropout_(name, dropout) {
  expect(width % experts == 0,
         [&] { return fmt::format("{} channels cannot be cut into {} equal chunks", width, experts); });
}

void ChannelMoe::forward(Context& c, TensorView x, TensorView y) {
  const bool alone = exchange_.direct();
  const std::int64_t length = group_.length();
  const TensorView chunk = exchange_.take_chunk(c, length, x.dtype);
  const TensorView normed = alone ? chunk : y;  // y is free until the answers come back
  norm_.forward(c, x, normed);
  if (!alone) exchange_.to_experts(c, length, normed, chunk);
  const TensorView answer = alone ? y : exchange_.take_chunk(c, length, x.dtype);
  experts_.forward(c, group_.all_sequences(), length, chunk, chunk, answer);
  if (!alone) exchange_.to_tokens(c, length, answer, y);
  if (x.rows() == 0) return;
  dropout_.join(c, y, x, y);
}

void ChannelMoe::backward(Context& c, TensorView dy, TensorView dx) {
  const Arena::Frame frame(c.scratch);
  const bool alone = exchange_.direct();
  const std::int64_t length = group_.length();
  const TensorView dbranch = dropout_.gradient(c, dy);
  const TensorView dchunk = exchange_.take_chunk(c, length, dy.dtype);
  TensorView danswer = dbranch;
  if (!alone) {
    danswer = exchange_.take_chunk(c, length, dy.dtype);
    exchange_.to_experts(c, length, dbranch, danswer);
  }
  experts_.backward(c, danswer, dchunk, dchunk);
  if (!alone) exchange_.to_tokens(c, length, dchunk, dx);
  norm_.backward(c, alone ? dchunk : dx, dy, dx);
}

}  // namespace smlp
