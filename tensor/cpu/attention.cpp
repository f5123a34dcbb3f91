// Causal attention in row blocks of the lower triangle, one head of one sequence after another: two products and the
// softmax between them; backward makes the probabilities of a block again. Scores exist for one block at a time.
#include <algorithm>

#include "tensor/cpu/cpu_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cpu {

namespace {

constexpr std::int64_t block_rows = 128;

struct Sizes : AttentionSizes {
  std::int64_t block() const { return std::min(block_rows, length); }
};

Sizes sizes_of(const char* verb, const Attention& a) {
  float_type(verb, a.query);
  return {attention_sizes(verb, a)};
}

// Rows [t, t + rows) of one head of one sequence.
Matrix part(const TensorView& view, const Sizes& s, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t rows) {
  return {view.at(b * view.stride[0] + t * view.stride[1] + h * s.width), rows, s.width, view.stride[1]};
}

SoftmaxArguments of_rows(const SoftmaxArguments& a, DType type, const Share& share) {
  const DType wide = wide_type(type);
  return {.scores = rows_of(a.scores, wide, share), .first = a.first + share.first, .scale = a.scale,
          .log_sum = offset_by(a.log_sum, share.first, wide), .out = rows_of(a.out, type, share),
          .dout = rows_of(a.dout, wide, share), .dscores = rows_of(a.dscores, type, share)};
}

}  // namespace

void CpuBackend::attention(const Attention& a) {
  const Sizes s = sizes_of("attention", a);
  if (a.query.size() == 0) return;
  const DType type = a.query.dtype, wide = wide_type(type);
  const std::int64_t square = s.block() * s.length;
  auto* scores = static_cast<std::byte*>(scratch(square * (size_of(wide) + size_of(type))));
  void* chances = type == wide ? scores : scores + square * size_of(wide);
  for (std::int64_t head = 0; head < s.sequences * s.heads; ++head) {
    const std::int64_t b = head / s.heads, h = head % s.heads;
    for (std::int64_t t = 0; t < s.length; t += block_rows) {
      const std::int64_t rows = std::min(block_rows, s.length - t), keys = t + rows;
      const Matrix q = part(a.query, s, b, h, t, rows), k = part(a.key, s, b, h, 0, keys);
      const Matrix v = part(a.value, s, b, h, 0, keys);
      const Matrix score{scores, rows, keys, s.length}, chance{chances, rows, keys, s.length};
      products_.run({.m = rows, .n = keys, .k = s.width, .a = q.data, .b = k.data, .a_stride = q.stride,
                     .b_stride = k.stride, .transpose_b = true, .out = score, .type = type, .out_type = wide});
      const SoftmaxArguments softmax{.scores = score, .first = t, .scale = s.scale(),
                                     .log_sum = a.log_sum.at(head * s.length + t), .out = chance, .dout = {}, .dscores = {}};
      team_.share(rows, keys * Work::heavy,
                  [&](const Share& share) { kernels(type).causal_softmax(of_rows(softmax, type, share)); });
      products_.run({.m = rows, .n = s.width, .k = keys, .a = chance.data, .b = v.data, .a_stride = chance.stride,
                     .b_stride = v.stride, .out = part(a.out, s, b, h, t, rows), .type = type, .out_type = type});
    }
  }
}

void CpuBackend::attention_backward(const Attention& a, TensorView dout, TensorView dquery, TensorView dkey,
                                    TensorView dvalue) {
  const char* verb = "attention_backward";
  const Sizes s = sizes_of(verb, a);
  same_shape(verb, {a.query, dout, dquery, dkey, dvalue});
  same_type(verb, {a.query, dout, dquery, dkey, dvalue});
  if (a.query.size() == 0) return;
  const DType type = a.query.dtype, wide = wide_type(type);
  // What several blocks add to is summed in the wide type: in its place, or in a copy that is rounded at the end.
  const bool apart = type != wide && s.length > block_rows;
  const std::int64_t square = s.block() * s.length, sums = apart ? s.length * s.width : 0;
  auto* memory = static_cast<std::byte*>(scratch((2 * square + 2 * sums) * size_of(wide) + 2 * square * size_of(type)));
  auto* dscores = memory + square * size_of(wide);
  auto *dkey_sum = dscores + square * size_of(wide), *dvalue_sum = dkey_sum + sums * size_of(wide);
  auto* narrow = dvalue_sum + sums * size_of(wide);
  void* chances = type == wide ? memory : narrow;
  void* slopes = type == wide ? dscores : narrow + square * size_of(type);
  for (std::int64_t head = 0; head < s.sequences * s.heads; ++head) {
    const std::int64_t b = head / s.heads, h = head % s.heads;
    const Matrix dk = apart ? Matrix{dkey_sum, s.length, s.width, s.width} : part(dkey, s, b, h, 0, s.length);
    const Matrix dv = apart ? Matrix{dvalue_sum, s.length, s.width, s.width} : part(dvalue, s, b, h, 0, s.length);
    // From the last block, which sees every key and writes; the others add.
    for (std::int64_t t = (s.length - 1) / block_rows * block_rows; t >= 0; t -= block_rows) {
      const std::int64_t rows = std::min(block_rows, s.length - t), keys = t + rows;
      const bool last = keys == s.length;
      const Matrix q = part(a.query, s, b, h, t, rows), k = part(a.key, s, b, h, 0, keys);
      const Matrix v = part(a.value, s, b, h, 0, keys), d = part(dout, s, b, h, t, rows);
      const Matrix score{memory, rows, keys, s.length}, dchance{dscores, rows, keys, s.length};
      const Matrix chance{chances, rows, keys, s.length}, slope{slopes, rows, keys, s.length};
      products_.run({.m = rows, .n = keys, .k = s.width, .a = q.data, .b = k.data, .a_stride = q.stride,
                     .b_stride = k.stride, .transpose_b = true, .out = score, .type = type, .out_type = wide});
      products_.run({.m = rows, .n = keys, .k = s.width, .a = d.data, .b = v.data, .a_stride = d.stride,
                     .b_stride = v.stride, .transpose_b = true, .out = dchance, .type = type, .out_type = wide});
      const SoftmaxArguments softmax{.scores = score, .first = t, .scale = s.scale(),
                                     .log_sum = a.log_sum.at(head * s.length + t), .out = chance, .dout = dchance,
                                     .dscores = slope};
      team_.share(rows, keys * Work::heavy,
                  [&](const Share& share) { kernels(type).causal_softmax_backward(of_rows(softmax, type, share)); });
      products_.run({.m = rows, .n = s.width, .k = keys, .a = slope.data, .b = k.data, .a_stride = slope.stride,
                     .b_stride = k.stride, .out = part(dquery, s, b, h, t, rows), .type = type, .out_type = type});
      const auto add_to = [&](const Matrix& sum, const Matrix& weights, const Matrix& values) {
        products_.run({.m = keys, .n = s.width, .k = rows, .a = weights.data, .b = values.data,
                       .a_stride = weights.stride, .b_stride = values.stride, .transpose_a = true, .accumulate = !last,
                       .out = {sum.data, keys, s.width, sum.stride}, .type = type, .out_type = apart ? wide : type});
      };
      add_to(dk, slope, q);
      add_to(dv, chance, d);
    }
    if (apart) {
      convert(dk, wide, part(dkey, s, b, h, 0, s.length), type);
      convert(dv, wide, part(dvalue, s, b, h, 0, s.length), type);
    }
  }
}

}  // namespace smlp::cpu
