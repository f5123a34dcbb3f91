// The products of a model that are more than one: causal token mixing and attention.
#include <algorithm>

#include "tensor/cuda/cuda_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cuda {

namespace {

constexpr std::int64_t block_rows = 128;
constexpr std::int64_t most_panel_bytes = std::int64_t{64} << 20;

// Position t and group g of the first sequence.
void* part(const TensorView& view, const SpatialSizes& s, std::int64_t g, std::int64_t t) {
  return view.at(t * view.stride[1] + g * s.channels);
}

// body(first position, positions) for each row block of the triangle.
template <class Body>
void for_row_blocks(std::int64_t length, Body body) {
  for (std::int64_t t = 0; t < length; t += block_rows) body(t, std::min(block_rows, length - t));
}

}  // namespace

// --- causal token mixing, in row blocks of the lower triangle: all sequences at once -----------------------

// The lower triangle of weight[group] and zeros: [length, length], contiguous.
std::byte* CudaBackend::masked_weight(const SpatialProduct& p, std::int64_t group, std::int64_t length) {
  begin();
  auto* weight = take<std::byte>(length * length * size_of(p.weight.dtype));
  copy_lower(stream(), p.weight.dtype,
             {p.weight.at(group * p.weight.stride[0]), length, length, p.weight.stride[1]}, 0,
             {weight, length, length, length});
  return weight;
}

void CudaBackend::spatial(const SpatialProduct& p) {
  float_type("spatial", p.v);
  const SpatialSizes s = spatial_sizes("spatial", p);
  same_type("spatial", {p.v, p.weight});
  if (p.v.size() == 0) return;
  const std::int64_t size = size_of(p.v.dtype);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    const auto* weight = masked_weight(p, g, s.length);
    for_row_blocks(s.length, [&](std::int64_t t, std::int64_t rows) {
      products_.run({.m = rows,
                     .n = s.channels,
                     .k = t + rows,
                     .a = weight + t * s.length * size,
                     .b = part(p.v, s, g, 0),
                     .a_stride = s.length,
                     .b_stride = p.v.stride[1],
                     .out = {part(p.out, s, g, t), rows, s.channels, p.out.stride[1]},
                     .type = p.v.dtype,
                     .out_type = p.v.dtype,
                     .batch = s.sequences,
                     .b_apart = p.v.stride[0],
                     .out_apart = p.out.stride[0]});
    });
  }
}

void CudaBackend::spatial_backward_input(const SpatialProduct& p) {
  float_type("spatial_backward_input", p.v);
  const SpatialSizes s = spatial_sizes("spatial_backward_input", p);
  same_type("spatial_backward_input", {p.v, p.weight});
  if (p.v.size() == 0) return;
  const std::int64_t size = size_of(p.v.dtype);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    const auto* weight = masked_weight(p, g, s.length);
    for_row_blocks(s.length, [&](std::int64_t t, std::int64_t rows) {
      products_.run({.m = rows,
                     .n = s.channels,
                     .k = s.length - t,
                     .a = weight + (t * s.length + t) * size,
                     .b = part(p.out, s, g, t),
                     .a_stride = s.length,
                     .b_stride = p.out.stride[1],
                     .transpose_a = true,
                     .out = {part(p.v, s, g, t), rows, s.channels, p.v.stride[1]},
                     .type = p.v.dtype,
                     .out_type = p.v.dtype,
                     .batch = s.sequences,
                     .b_apart = p.out.stride[0],
                     .out_apart = p.v.stride[0]});
    });
  }
}

// One panel a sequence, as many as fit, then their sum in order: the weight's gradient has one writer.
void CudaBackend::spatial_backward_weight(const SpatialProduct& p) {
  float_type("spatial_backward_weight", p.v);
  const SpatialSizes s = spatial_sizes("spatial_backward_weight", p);
  require(p.weight.dtype == DType::f32, "spatial_backward_weight", "the weight's gradient must be f32");
  if (p.v.size() == 0) return;
  begin();
  const std::int64_t apart = std::min(block_rows, s.length) * s.length;
  const std::int64_t panels = std::clamp<std::int64_t>(most_panel_bytes / (apart * 4), 1, s.sequences);
  auto* panel = take<float>(panels * apart);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    for_row_blocks(s.length, [&](std::int64_t t, std::int64_t rows) {
      const std::int64_t keys = t + rows;
      const Matrix to{p.weight.at(g * p.weight.stride[0] + t * p.weight.stride[1]), rows, keys,
                      p.weight.stride[1]};
      for (std::int64_t b = 0; b < s.sequences; b += panels) {
        const std::int64_t count = std::min(panels, s.sequences - b);
        products_.run({.m = rows,
                       .n = keys,
                       .k = s.channels,
                       .a = p.out.at(b * p.out.stride[0] + t * p.out.stride[1] + g * s.channels),
                       .b = p.v.at(b * p.v.stride[0] + g * s.channels),
                       .a_stride = p.out.stride[1],
                       .b_stride = p.v.stride[1],
                       .transpose_b = true,
                       .out = {panel, rows, keys, s.length},
                       .type = p.v.dtype,
                       .out_type = DType::f32,
                       .batch = count,
                       .a_apart = p.out.stride[0],
                       .b_apart = p.v.stride[0],
                       .out_apart = apart});
        add_lower(stream(), {panel, rows, keys, s.length}, count, apart, t, to);
      }
    });
  }
}

// --- attention: the scores of a sequence's heads at once, as many as fit; the softmax between two products ---

namespace {

std::int64_t square_of(const AttentionSizes& s) { return s.length * s.length; }
std::int64_t heads_at_once(const AttentionSizes& s) {
  return std::clamp<std::int64_t>(most_panel_bytes / (square_of(s) * 4), 1, s.heads);
}

// Heads [h, h + count) of one sequence, as a batch.
struct Heads {
  const AttentionSizes& s;
  std::int64_t b, h, count;
  void* of(const TensorView& view) const { return view.at(b * view.stride[0] + h * s.width); }

  // out [T, T] = x · yᵀ of each head, f32
  Product scores(const TensorView& x, const TensorView& y, float* out) const {
    return {.m = s.length,
            .n = s.length,
            .k = s.width,
            .a = of(x),
            .b = of(y),
            .a_stride = x.stride[1],
            .b_stride = y.stride[1],
            .transpose_b = true,
            .out = {out, s.length, s.length, s.length},
            .type = x.dtype,
            .out_type = DType::f32,
            .batch = count,
            .a_apart = s.width,
            .b_apart = s.width,
            .out_apart = square_of(s)};
  }
  // out [T, width] = op(weights [T, T]) · x of each head
  Product weighted(void* weights, bool transpose, const TensorView& x, const TensorView& out) const {
    return {.m = s.length,
            .n = s.width,
            .k = s.length,
            .a = weights,
            .b = of(x),
            .a_stride = s.length,
            .b_stride = x.stride[1],
            .transpose_a = transpose,
            .out = {of(out), s.length, s.width, out.stride[1]},
            .type = x.dtype,
            .out_type = x.dtype,
            .batch = count,
            .a_apart = square_of(s),
            .b_apart = s.width,
            .out_apart = s.width};
  }
};

template <class Body>
void for_heads(const AttentionSizes& s, Body body) {
  for (std::int64_t b = 0; b < s.sequences; ++b) {
    for (std::int64_t h = 0; h < s.heads; h += heads_at_once(s))
      body(Heads{s, b, h, std::min(heads_at_once(s), s.heads - h)});
  }
}

}  // namespace

void CudaBackend::attention(const Attention& a) {
  float_type("attention", a.query);
  const AttentionSizes s = attention_sizes("attention", a);
  if (a.query.size() == 0) return;
  begin();
  const DType type = a.query.dtype;
  const std::int64_t size = heads_at_once(s) * square_of(s);
  auto* scores = take<float>(size);
  void* chances = take<std::byte>(size * size_of(type));
  for_heads(s, [&](const Heads& heads) {
    products_.run(heads.scores(a.query, a.key, scores));
    causal_softmax(stream(), type,
                   {.scores = scores,
                    .heads = heads.count,
                    .length = s.length,
                    .scale = static_cast<float>(s.scale()),
                    .log_sum = a.log_sum.as<float>() + (heads.b * s.heads + heads.h) * s.length,
                    .chances = chances});
    products_.run(heads.weighted(chances, false, a.value, a.out));
  });
}

void CudaBackend::attention_backward(const Attention& a, TensorView dout, TensorView dquery, TensorView dkey,
                                     TensorView dvalue) {
  const char* verb = "attention_backward";
  float_type(verb, a.query);
  const AttentionSizes s = attention_sizes(verb, a);
  same_shape(verb, {a.query, dout, dquery, dkey, dvalue});
  same_type(verb, {a.query, dout, dquery, dkey, dvalue});
  if (a.query.size() == 0) return;
  begin();
  const DType type = a.query.dtype;
  const std::int64_t size = heads_at_once(s) * square_of(s);
  auto *scores = take<float>(size), *dchances = take<float>(size);
  void *chances = take<std::byte>(size * size_of(type)), *dscores = take<std::byte>(size * size_of(type));
  for_heads(s, [&](const Heads& heads) {
    products_.run(heads.scores(a.query, a.key, scores));
    products_.run(heads.scores(dout, a.value, dchances));
    causal_softmax_backward(stream(), type,
                            {.scores = scores,
                             .heads = heads.count,
                             .length = s.length,
                             .scale = static_cast<float>(s.scale()),
                             .log_sum = a.log_sum.as<float>() + (heads.b * s.heads + heads.h) * s.length,
                             .chances = chances,
                             .dchances = dchances,
                             .dscores = dscores});
    products_.run(heads.weighted(chances, true, dout, dvalue));
    products_.run(heads.weighted(dscores, false, a.key, dquery));
    products_.run(heads.weighted(dscores, true, a.query, dkey));
  });
}

}  // namespace smlp::cuda
