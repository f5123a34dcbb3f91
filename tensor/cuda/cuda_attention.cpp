// Attention: in its flash form where a library takes the call (flash_attention.h); else by two products with a softmax
// between them, for as many heads of a sequence at once as fit.
#include <algorithm>

#include "tensor/cuda/cuda_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cuda {

namespace {

constexpr std::int64_t most_panel_bytes = std::int64_t{64} << 20;

// In a tensor of one sequence the step to the next may be anything.
HeadTensor by_head(const TensorView& view, const AttentionSizes& s) {
  return {view.data, s.sequences > 1 ? view.stride[0] : s.length * view.stride[1], s.width, view.stride[1]};
}

FlashCall flash_call(const Attention& a, const AttentionSizes& s) {
  return {.type = a.query.dtype,
          .sequences = s.sequences,
          .heads = s.heads,
          .length = s.length,
          .width = s.width,
          .scale = static_cast<float>(s.scale()),
          .query = by_head(a.query, s),
          .key = by_head(a.key, s),
          .value = by_head(a.value, s),
          .out = by_head(a.out, s),
          .log_sum = a.log_sum.as<float>()};
}

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
  if (flash_.run(flash_call(a, s), scratch_)) return;
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
  FlashCall call = flash_call(a, s);
  call.deterministic = deterministic_;
  call.dout = by_head(dout, s);
  call.dquery = by_head(dquery, s);
  call.dkey = by_head(dkey, s);
  call.dvalue = by_head(dvalue, s);
  if (flash_.run(call, scratch_)) return;
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
