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

// Each sequence's columns, some rows of all sequences at once.
void permute(const Team& team, void (*kernel)(const ColumnArguments&), const TensorView& in, const TensorView& index,
             const TensorView& scale, const TensorView& out) {
  const std::int64_t sequences = in.shape[0], columns = in.shape[2];
  team.share(in.shape[1], sequences * columns * Work::plain, [&](const Share& share) {
    for (std::int64_t b = 0; b < sequences; ++b) {
      kernel({rows_of(sequence(in, b), in.dtype, share), index.as<const std::int32_t>() + b * columns,
              scale ? scale.at(b * columns) : nullptr, rows_of(sequence(out, b), in.dtype, share)});
    }
  });
}

}  // namespace

void CpuBackend::gather_columns(TensorView in, TensorView index, TensorView scale, TensorView out) {
  check_columns("gather_columns", in, index, scale, out);
  permute(team_, kernels(in.dtype).gather_columns, in, index, scale, out);
}

void CpuBackend::scatter_columns(TensorView in, TensorView index, TensorView scale, TensorView out) {
  check_columns("scatter_columns", in, index, scale, out);
  permute(team_, kernels(in.dtype).scatter_columns, in, index, scale, out);
}

void CpuBackend::column_dots(TensorView a, TensorView b, TensorView out) {
  const char* verb = "column_dots";
  same_shape(verb, {a, b});
  same_type(verb, {a, b});
  float_type(verb, a);
  require(a.shape.rank() == 3, verb, "a and b must be [sequences, length, columns]");
  vector_of(verb, "out", out, a.shape[0] * a.shape[2], wide_type(a.dtype));
  team_.share_columns(a.shape[2], a.shape[0] * a.shape[1] * Work::plain, [&](const Share& share) {
    for (std::int64_t s = 0; s < a.shape[0]; ++s) {
      kernels(a.dtype).column_dots(columns_of(sequence(a, s), a.dtype, share), columns_of(sequence(b, s), a.dtype, share),
                                   out.at(s * a.shape[2] + share.first));
    }
  });
}

}  // namespace smlp::cpu
