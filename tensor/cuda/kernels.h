// What the own kernels do, as plain functions that start them on a stream. The backend checks shapes and
// types before it calls; kernels allocate nothing. Indices are seen on the device alone: one that lies beyond
// what it points into is taken for "no row" and leaves its FaultKind in *fault, which the backend reads where
// the host waits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "tensor/matrix.h"
#include "tensor/operands.h"

namespace smlp::cuda {

enum class FaultKind : int { none, index, target, column, token, expert, slot, table };

struct Numbers {  // of a type that is known at run time only
  void* data = nullptr;
  DType type = DType::f32;
};

// --- element by element (pointwise.cu) ---------------------------------------------------------------------
constexpr int most_row_blocks = 64;
struct RowBlocks {
  int count = 0;
  RowBlock block[most_row_blocks];
};

void fill(cudaStream_t stream, DType type, const Matrix& out, double value);
void convert(cudaStream_t stream, DType from_type, const Matrix& from, DType to_type, const Matrix& to);
void copy_rows(cudaStream_t stream, std::int64_t element_bytes, const Matrix& from, const Matrix& to,
               const RowBlocks& blocks);
void add(cudaStream_t stream, DType type, const Matrix& a, const Matrix& b, const Matrix& out);
void activate(cudaStream_t stream, DType type, Activation kind, const Matrix& in, const Matrix& out);
void activate_backward(cudaStream_t stream, DType type, Activation kind, const Matrix& in, const Matrix& dout,
                       const Matrix& din);
// The bias of a row: the same for all; or, with `rows`, the next one after so many rows; or, with `groups`, that of the
// expert of the last group that does not begin after the row (first and expert: the device's, ascending from 0).
struct RowBias {
  const void* data = nullptr;  // null: none
  std::int64_t apart = 0, rows = 0, groups = 0;
  const std::int64_t *first = nullptr, *expert = nullptr;
};
// out = [gelu of] out + bias + residual, where a product could not do it itself; `before` keeps what gelu is
// applied to. bias is of `type`, all others of out_type; bias.data, residual.data and before.data may be null.
void finish(cudaStream_t stream, DType type, const RowBias& bias, DType out_type, const Matrix& out,
            const Matrix& residual, bool gelu, const Matrix& before);
// A few words of the host as they are when it is called: they travel as arguments.
void put_words(cudaStream_t stream, std::span<const std::int64_t> words, std::int64_t* to);
// `place`: StreamPlace, on the device. residual.data may be null.
void dropout(cudaStream_t stream, DType type, const Matrix& in, double rate, std::uint64_t stream_key,
             const std::int64_t* place, const Matrix& residual, const Matrix& out);
void jitter(cudaStream_t stream, DType type, const Matrix& in, double amount, std::uint64_t key,
            std::int64_t first_row, const Matrix& out);
// Square matrices, `apart` elements from one to the next. Copied one behind the other without gaps: the lower triangle,
// zeros in the upper one.
struct Squares {
  void* data;
  std::int64_t count, length, stride, apart;
};
void copy_lower(cudaStream_t stream, DType type, const Squares& in, void* out);
// To each of `count` square matrices, in its rows `first` and following up to the diagonal: the sum of `panels` matrices
// of as many rows, in order. All panels lie panel_apart elements from one to the next, those of a matrix together.
struct LowerSums {
  const float* panel;
  std::int64_t panels, panel_stride, panel_apart;
  float* out;  // row `first` of the first matrix
  std::int64_t count, out_apart, out_stride;
  std::int64_t first, rows;
};
void add_lower(cudaStream_t stream, const LowerSums& s);

// --- sequences [B, T, C] (gate.cu, columns.cu) -------------------------------------------------------------
struct Sequences {
  void* data;
  std::int64_t sequences, length, channels;
  std::int64_t sequence_stride, row_stride;
};
struct Gate {
  std::int64_t groups;
  Activation activation;
  const void* bias;  // [groups, T]
  std::int64_t bias_stride;
  Sequences u, z;
};
struct GateBackward {
  Sequences dout, du, dz;
  float* dbias;  // [groups, T]
  std::int64_t dbias_stride;
};
void gate(cudaStream_t stream, DType type, const Gate& gate, const Sequences& out);
void gate_backward(cudaStream_t stream, DType type, const Gate& gate, const GateBackward& b);

// [B, T, groups · c], and [groups, T, B · c] without gaps: what every group has of a position lies together.
void pack_groups(cudaStream_t stream, DType type, std::int64_t groups, const Sequences& from, void* packed);
void unpack_groups(cudaStream_t stream, DType type, std::int64_t groups, const void* packed, const Sequences& to);

struct Columns {
  Sequences in, out;
  const std::int32_t* index;  // [B, C]
  const void* scale;          // [B, C] of the values' type; null: 1
};
void gather_columns(cudaStream_t stream, DType type, const Columns& c, int* fault);
void scatter_columns(cudaStream_t stream, DType type, const Columns& c, int* fault);
void column_dots(cudaStream_t stream, DType type, const Sequences& a, const Sequences& b, float* out);

// --- sums over rows (columns.cu): partial sums in `scratch`, then their sum --------------------------------
// Of scratch, for each sum; `rows` of each part.
std::int64_t column_sum_floats(std::int64_t rows, std::int64_t width, std::int64_t parts = 1);
// Equal parts of the rows are added up apart, each to its own vector.
struct RowSums {
  void* add_to;
  std::int64_t parts = 1, apart = 0;
};
void sum_rows(cudaStream_t stream, DType type, const Matrix& x, DType total_type, const RowSums& to, float* scratch);

// --- layer normalisation (norm.cu) -------------------------------------------------------------------------
struct Norm {
  Activation activation;  // of x
  Matrix x;
  const void* weight;  // null: 1
  const void* bias;    // null: 0
  std::int64_t groups;
  std::int64_t lines;  // of weight and bias, each for as many rows
  float* mean;         // [rows, groups]
  float* inverse_deviation;
};
void layer_norm(cudaStream_t stream, DType type, const Norm& n, const Matrix& out);
struct NormBackward {
  Matrix dy, residual, dx;  // residual.data null: none
  float* dweight;           // null with the weight
  float* dbias;
  float* scratch;  // 2 · column_sum_floats() of the lines, null where neither is wanted
};
void layer_norm_backward(cudaStream_t stream, DType type, const Norm& n, const NormBackward& b);

// --- rows by index (rows.cu, sort.cu) ----------------------------------------------------------------------
struct Indexed {
  Matrix in;
  const std::int32_t* index;
  std::int64_t count;
  float scale;
  const void* row_scale;  // of the values' type; null: 1
  Matrix out;
};
void gather_rows(cudaStream_t stream, DType type, const Indexed& a, int* fault);
void row_dots(cudaStream_t stream, DType type, const Matrix& a, const Matrix& b, const std::int32_t* index,
              float* out, int* fault);

// Stable sort of `value` by the low `bits` of `key`: in keys and values, out in them as well. A device-wide
// radix sort.
struct Sort {
  std::int64_t count;
  std::int32_t* value;  // [count]
  std::int32_t* other_value;
  std::uint32_t* key;  // [count], one of the two pairs is null
  std::uint32_t* other_key;
  std::uint64_t* wide_key;
  std::uint64_t* other_wide_key;
  std::int32_t* counts;  // [sort_counts(count)]
};
std::int64_t sort_counts(std::int64_t count);
void sort(cudaStream_t stream, const Sort& s, int bits);
int bits_for(std::int64_t values);  // that tell 0 ... values - 1 apart

// Where the index names no row twice.
void add_to_distinct_rows(cudaStream_t stream, DType type, const Indexed& a, DType total_type, int* fault);
// sorted: value = 0 ... count - 1 by index (order_by_index), so that one warp or block adds all rows that
// share a place.
void order_by_index(cudaStream_t stream, const std::int32_t* index, std::int64_t limit, const Sort& s,
                    int* fault);
void add_to_sorted_rows(cudaStream_t stream, DType type, const Indexed& a, DType total_type, const Sort& sorted);

// --- loss and update (loss.cu) -----------------------------------------------------------------------------
void cross_entropy(cudaStream_t stream, DType type, const Matrix& logits, const std::int32_t* targets,
                   double* row_loss, const double* scale, bool gradient, int* fault);
constexpr int sum_blocks = 1024;  // at most; as many as hold what a large card has under way
// add_to[0] += sum of x (or of x²); scratch: [sum_blocks] f64.
void sum(cudaStream_t stream, DType type, const Matrix& x, bool squares, double* add_to, double* scratch);
struct Update {
  std::int64_t count;
  void* value;
  float* master;  // null: the value itself
  const float* grad;
  float* m;
  float* v;
  const double* control;
  AdamWSettings settings;
};
void adamw(cudaStream_t stream, DType type, const Update& u);

// --- attention (softmax.cu)
// --------------------------------------------------------------------------------------- Square score
// matrices [heads, T, T] in f32: row t sees columns up to t.
struct CausalSoftmax {
  float* scores;
  std::int64_t heads, length;
  float scale;                // of the scores
  float* log_sum;             // [heads, T]
  void* chances;              // [heads, T, T] of the values' type, 0 in what is not seen
  float* dchances = nullptr;  // backward
  void* dscores = nullptr;
};
void causal_softmax(cudaStream_t stream, DType type, const CausalSoftmax& s);
void causal_softmax_backward(cudaStream_t stream, DType type,
                             const CausalSoftmax& s);  // from log_sum: chances, dscores

}  // namespace smlp::cuda
