#include "layers/routed_channel_moe.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/model_check.h"

namespace smlp {

namespace {

// `length`: of the part of a sequence that is gated. The weight starts as small as that of a whole one (model.md).
SpatialGate make_experts(ParameterStore& store, const std::string& name, std::int64_t length, std::int64_t context,
                         const ExpertExchange& exchange) {
  ParameterSpec of_part = spatial_weight_spec(name + ".spatial", context);
  of_part.shape = {length, length};
  Parameter& weight = store.add(exchange.slice_of(std::move(of_part)));
  Parameter& bias = store.add(exchange.slice_of(spatial_bias_spec(name + ".spatial", length)));
  return SpatialGate(LayerNorm(exchange.local_experts()), weight, bias);
}

TensorView by_sequence(const Context& c, const TensorView& rows) {
  return rows.reshaped({c.sequences, rows.rows() / std::max<std::int64_t>(c.sequences, 1), rows.width()});
}

}  // namespace

RoutedChannelMoe::RoutedChannelMoe(ParameterStore& store, const std::string& name, std::int64_t width,
                                   std::int64_t context, std::int64_t experts, bool leaky, double dropout,
                                   ExpertExchange& exchange)
    : first_(leaky ? 0 : prefix_of(context)),
      group_(exchange),
      exchange_(exchange, width),
      norm_(store, name + ".norm", width),
      router_(store, name + ".router", leaky ? context : prefix_of(context), experts),
      experts_(make_experts(store, name + ".experts", context - first_, context, exchange)),
      dropout_(name, dropout) {}

std::int64_t RoutedChannelMoe::gated_length() const { return std::max<std::int64_t>(group_.length() - first_, 0); }

TensorView RoutedChannelMoe::gated_part(const Context& c, const TensorView& rows) const {
  TensorView part = by_sequence(c, rows);
  part.data = part.at(first_ * part.stride[1]);
  part.shape[1] -= first_;
  return part;
}

void RoutedChannelMoe::forward(Context& c, TensorView x, TensorView y) {
  const std::int64_t gated = gated_length();
  expect(gated > 0 || !c.training(), "sequences no longer than the prefix that routes channels predict nothing");
  if (gated == 0) {
    if (x.rows() > 0) c.backend.copy(x, y);
    return;
  }
  const TensorView columns = c.scratch.take({c.sequences * gated, x.width()}, x.dtype);
  answers_ = by_sequence(c, c.scratch.take(columns.shape, x.dtype));
  if (x.rows() > 0) {
    const TensorView normed = c.scratch.take({x.rows(), x.width()}, x.dtype);
    norm_.forward(c, x, normed);
    plan_ = router_.plan(c.backend, c.scratch, by_sequence(c, normed));
    c.backend.gather_columns(gated_part(c, normed), plan_.channel_of_slot, {}, by_sequence(c, columns));
  }
  const TensorView answers = answers_.reshaped(columns.shape);
  if (exchange_.direct()) {
    experts_.forward(c, c.sequences, gated, columns, columns, answers);
  } else {
    const TensorView chunk = exchange_.take_chunk(c, gated, x.dtype);
    const TensorView answer = exchange_.take_chunk(c, gated, x.dtype);
    exchange_.to_experts(c, gated, columns, chunk);
    experts_.forward(c, group_.all_sequences(), gated, chunk, chunk, answer);
    exchange_.to_tokens(c, gated, answer, answers);
  }
  if (x.rows() == 0) return;
  if (first_ > 0) c.backend.fill(y, 0);
  c.backend.scatter_columns(answers_, plan_.channel_of_slot, plan_.weight, gated_part(c, y));
  dropout_.join(c, y, x, y);
}

void RoutedChannelMoe::backward(Context& c, TensorView dy, TensorView dx) {
  const Arena::Frame frame(c.scratch);
  const std::int64_t gated = gated_length();
  const TensorView dbranch = dropout_.gradient(c, dy);
  const TensorView danswers = c.scratch.take({c.sequences * gated, dy.width()}, dy.dtype);
  const TensorView dcolumns = c.scratch.take(danswers.shape, dy.dtype);
  TensorView dweight;
  if (dy.rows() > 0) {
    const TensorView dgated = gated_part(c, dbranch), to = by_sequence(c, danswers);
    c.backend.gather_columns(dgated, plan_.channel_of_slot, {}, to);
    dweight = c.scratch.take(plan_.weight.shape, wide_type(dy.dtype));
    c.backend.column_dots(answers_, to, dweight);
    c.backend.gather_columns(dgated, plan_.channel_of_slot, plan_.weight, to);
  }
  if (exchange_.direct()) {
    experts_.backward(c, danswers, dcolumns, dcolumns);
  } else {
    const TensorView danswer = exchange_.take_chunk(c, gated, dy.dtype);
    const TensorView dchunk = exchange_.take_chunk(c, gated, dy.dtype);
    exchange_.to_experts(c, gated, danswers, danswer);
    experts_.backward(c, danswer, dchunk, dchunk);
    exchange_.to_tokens(c, gated, dchunk, dcolumns);
  }
  if (dy.rows() == 0) return;
  const TensorView dnormed = c.scratch.take({dy.rows(), dy.width()}, dy.dtype);
  if (first_ > 0) c.backend.fill(dnormed, 0);
  c.backend.scatter_columns(by_sequence(c, dcolumns), plan_.channel_of_slot, {}, gated_part(c, dnormed));
  router_.backward(c.backend, c.scratch, plan_, dweight, by_sequence(c, dnormed));
  norm_.backward(c, dnormed, dy, dx);
}

}  // namespace smlp
