// Columns of sequences by index.
#include <algorithm>

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

}  // namespace smlp::cpu
