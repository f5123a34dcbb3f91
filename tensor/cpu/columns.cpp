// Columns of sequences by index, and the softmax gate over slots.
#include <algorithm>
#include <cmath>

#include "tensor/checks.h"
#include "tensor/cpu/cpu_backend.h"

namespace smlp::cpu {

namespace {

// Sequence b of a view [B, T, C] as a matrix.
Matrix sequence(const TensorView& view, std::int64_t b) {
  return {view.at(b * view.stride[0]), view.shape[1], view.shape[2], view.stride[1]};
}

void check_columns(const char* verb, const TensorView& in, const TensorView& index, const TensorView& scale,
                   const TensorView& out) {
  same_shape(verb, {in, out});
  same_type(verb, {in, scale, out});
  float_type(verb, in);
  require(in.shape.rank() == 3, verb, "in and out must be [sequences, length, columns]");
  const std::int64_t sequences = in.shape[0], columns = in.shape[2];
  vector_of(verb, "index", index, sequences * columns, DType::i32);
  if (scale) vector_of(verb, "scale", scale, sequences * columns, in.dtype);
  const auto* values = index.as<const std::int32_t>();
  require(std::all_of(values, values + index.size(), [&](std::int32_t c) { return c >= 0 && c < columns; }), verb,
          "an index lies beyond the columns");
}

ColumnArguments arguments(const TensorView& in, const TensorView& index, const TensorView& scale, const TensorView& out,
                          std::int64_t b) {
  const std::int64_t columns = in.shape[2];
  return {sequence(in, b), index.as<const std::int32_t>() + b * columns, scale ? scale.at(b * columns) : nullptr,
          sequence(out, b)};
}

}  // namespace

void CpuBackend::gather_columns(TensorView in, TensorView index, TensorView scale, TensorView out) {
  check_columns("gather_columns", in, index, scale, out);
  for (std::int64_t b = 0; b < in.shape[0]; ++b) kernels(in.dtype).gather_columns(arguments(in, index, scale, out, b));
}

void CpuBackend::scatter_columns(TensorView in, TensorView index, TensorView scale, TensorView out) {
  check_columns("scatter_columns", in, index, scale, out);
  for (std::int64_t b = 0; b < in.shape[0]; ++b) kernels(in.dtype).scatter_columns(arguments(in, index, scale, out, b));
}

void CpuBackend::column_dots(TensorView a, TensorView b, TensorView out) {
  const char* verb = "column_dots";
  same_shape(verb, {a, b});
  same_type(verb, {a, b});
  float_type(verb, a);
  require(a.shape.rank() == 3, verb, "a and b must be [sequences, length, columns]");
  vector_of(verb, "out", out, a.shape[0] * a.shape[2], wide_type(a.dtype));
  for (std::int64_t s = 0; s < a.shape[0]; ++s) {
    kernels(a.dtype).column_dots(sequence(a, s), sequence(b, s), out.at(s * a.shape[2]));
  }
}

namespace {

void check_gate(const char* verb, const TensorView& scores, const TensorView& alpha, const TensorView& token_of_slot,
                std::span<const std::int64_t> rows_of_expert) {
  require(scores.shape.rank() == 2 && scores.contiguous() && (scores.dtype == DType::f32 || scores.dtype == DType::f64),
          verb, "scores must be [tokens, experts] in f32 or f64");
  require(static_cast<std::int64_t>(rows_of_expert.size()) == scores.shape[1], verb,
          "rows_of_expert must hold one count an expert");
  std::int64_t slots = 0;
  for (const auto rows : rows_of_expert) slots += rows;
  vector_of(verb, "token_of_slot", token_of_slot, slots, DType::i32);
  vector_of(verb, "alpha", alpha, slots, scores.dtype);
  const auto* token = token_of_slot.as<const std::int32_t>();
  require(std::all_of(token, token + slots, [&](std::int32_t t) { return t < scores.shape[0]; }), verb,
          "a token lies beyond the scores");
}

// The softmax of one row of scores.
template <class W>
struct Softmax {
  const W* row;
  std::int64_t experts;
  W most, total = 0;

  Softmax(const W* scores, std::int64_t count) : row(scores), experts(count), most(*std::max_element(scores, scores + count)) {
    for (std::int64_t e = 0; e < experts; ++e) total += std::exp(row[e] - most);
  }
  W operator()(std::int64_t e) const { return std::exp(row[e] - most) / total; }
};

// body(slot, token's row of scores, expert) for every slot that is not empty.
template <class Body>
void for_each_used(const TensorView& scores, const TensorView& token_of_slot, std::span<const std::int64_t> rows_of_expert,
                   Body body) {
  const auto* token = token_of_slot.as<const std::int32_t>();
  std::int64_t slot = 0;
  for (std::size_t e = 0; e < rows_of_expert.size(); ++e) {
    for (std::int64_t i = 0; i < rows_of_expert[e]; ++i, ++slot) {
      if (token[slot] >= 0) body(slot, token[slot] * scores.shape[1], static_cast<std::int64_t>(e));
    }
  }
}

template <class W>
void softmax_gate(const TensorView& scores, const TensorView& token_of_slot, std::span<const std::int64_t> rows_of_expert,
                  const TensorView& alpha) {
  std::fill_n(alpha.as<W>(), alpha.size(), W(0));
  for_each_used(scores, token_of_slot, rows_of_expert, [&](std::int64_t slot, std::int64_t row, std::int64_t e) {
    alpha.as<W>()[slot] = Softmax<W>(scores.as<const W>() + row, scores.shape[1])(e);
  });
}

template <class W>
void softmax_gate_backward(const TensorView& scores, const TensorView& dalpha, const TensorView& token_of_slot,
                           std::span<const std::int64_t> rows_of_expert, const TensorView& dscores) {
  for_each_used(scores, token_of_slot, rows_of_expert, [&](std::int64_t slot, std::int64_t row, std::int64_t e) {
    const Softmax<W> chance(scores.as<const W>() + row, scores.shape[1]);
    const W slope = dalpha.as<const W>()[slot] * chance(e);
    for (std::int64_t f = 0; f < scores.shape[1]; ++f) {
      dscores.as<W>()[row + f] += slope * (static_cast<W>(f == e) - chance(f));
    }
  });
}

}  // namespace

void CpuBackend::softmax_of_slots(TensorView scores, TensorView token_of_slot, std::span<const std::int64_t> rows_of_expert,
                                  TensorView alpha) {
  check_gate("softmax_of_slots", scores, alpha, token_of_slot, rows_of_expert);
  const auto gate = scores.dtype == DType::f64 ? softmax_gate<double> : softmax_gate<float>;
  gate(scores, token_of_slot, rows_of_expert, alpha);
}

void CpuBackend::softmax_of_slots_backward(TensorView scores, TensorView dalpha, TensorView token_of_slot,
                                           std::span<const std::int64_t> rows_of_expert, TensorView dscores) {
  const char* verb = "softmax_of_slots_backward";
  check_gate(verb, scores, dalpha, token_of_slot, rows_of_expert);
  same_shape(verb, {scores, dscores});
  require(dscores.contiguous() && dscores.dtype == scores.dtype, verb, "dscores must be as the scores are");
  const auto gate = scores.dtype == DType::f64 ? softmax_gate_backward<double> : softmax_gate_backward<float>;
  gate(scores, dalpha, token_of_slot, rows_of_expert, dscores);
}

}  // namespace smlp::cpu
