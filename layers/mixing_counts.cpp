#include "layers/mixing_counts.h"

#include <memory>

#include "layers/attention.h"
#include "layers/channel_moe.h"
#include "layers/exchange.h"
#include "layers/spatial_gate.h"
#include "tensor/counting.h"

namespace smlp {

namespace {

constexpr std::int64_t sequences = 2, of_a_norm = 5;

struct Rehearsal {
  CountingBackend backend;
  ParameterStore store;
  Arena scratch{backend};
  std::unique_ptr<Communicator> solo = make_solo(backend);

  Context context(std::int64_t length) {
    Context c{backend, scratch};
    c.mode = Mode::evaluation;
    c.sequences = sequences;
    c.length = length;
    return c;
  }
  void seal() { store.seal(backend, DType::f32, 0, false); }
};

}  // namespace

MixingCounts count_self_attention(std::int64_t context, std::int64_t width, std::int64_t heads) {
  Rehearsal r;
  SelfAttention layer(r.store, "attention", width, heads, 0);
  r.seal();
  auto c = r.context(context);
  const Shape rows{sequences * context, width};
  const TensorView x = r.scratch.take(rows, DType::f32);
  layer.forward(c, x, r.scratch.take(rows, DType::f32));
  const std::int64_t norm_in_front = 2 * width;
  return {r.store.count_global() - norm_in_front, r.backend.multiply_adds().paper};
}

MixingCounts count_spatial_gate(std::int64_t context, std::int64_t hidden, std::int64_t heads) {
  Rehearsal r;
  const std::int64_t channels = hidden / 2;
  Parameter& norm_weight = r.store.add({.name = "norm.weight", .shape = {channels}, .initial = Initial::ones()});
  Parameter& norm_bias = r.store.add({.name = "norm.bias", .shape = {channels}, .initial = {}});
  auto weight = spatial_weight_spec("spatial", context), bias = spatial_bias_spec("spatial", context);
  weight.shape = weight.shape.stacked(heads);
  bias.shape = bias.shape.stacked(heads);
  Parameter& w = r.store.add(weight);
  Parameter& b = r.store.add(bias);
  r.seal();
  SpatialGate gate(LayerNorm(norm_weight, norm_bias), w, b);
  auto c = r.context(context);
  const Shape rows{sequences * context, channels};
  const TensorView u = r.scratch.take(rows, DType::f32), v = r.scratch.take(rows, DType::f32);
  gate.forward(c, sequences, context, u, v, r.scratch.take(rows, DType::f32));
  return {r.store.count_global(), r.backend.multiply_adds().paper + of_a_norm * v.size()};
}

MixingCounts count_channel_moe(std::int64_t context, std::int64_t width, std::int64_t experts) {
  Rehearsal r;
  ExpertExchange exchange(*r.solo, experts);
  ChannelMoe layer(r.store, "smoe", width, context, experts, 0, exchange);
  r.seal();
  auto c = r.context(context);
  exchange.begin(c);
  const Shape rows{sequences * context, width};
  const TensorView x = r.scratch.take(rows, DType::f32);
  layer.forward(c, x, r.scratch.take(rows, DType::f32));
  return {r.store.count_global(Placement::expert) / experts, r.backend.multiply_adds().paper + of_a_norm * x.size()};
}

}  // namespace smlp
