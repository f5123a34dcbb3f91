// The table of own CPU kernels: plain functions over plain matrices, one table for each instruction set. The same
// source (kernels.inc) is compiled once for each set with its own flags, everything else in it is local to its file,
// so no function built for a wide set can be linked into code that runs on a narrow one. The backend checks shapes
// and types before it calls, and shares rows or columns out to threads (team.h); kernels check nothing, allocate nothing
// and do what they are given on the thread that calls them.
#pragma once

#include <cstdint>

#include "tensor/matrix.h"
#include "tensor/tensor_view.h"

namespace smlp::cpu {

// Numbers of enum Activation.
enum class Pointwise : int { none, gelu_tanh, gelu, relu };

// out = act(u) · (z + bias), bias and dbias an element a row.
struct GateArguments {
  Pointwise activation;
  Matrix u, z;
  const void* bias;
  Matrix out{};   // forward
  Matrix dout{};  // backward from here
  Matrix du{}, dz{};
  void* dbias = nullptr;  // f32 (f64 for f64)
};

struct NormArguments {
  Pointwise activation;  // of x
  Matrix x;
  const void* weight;  // null: 1
  const void* bias;    // null: 0
  std::int64_t groups;
  void* mean;  // [rows, groups], f32 (f64 for f64)
  void* inverse_deviation;
  Matrix out;       // forward
  Matrix dy;        // backward from here
  Matrix residual;  // data null: none
  Matrix dx;
  void* dweight;  // f32 (f64 for f64), null with weight
  void* dbias;
  void* scratch;  // of the gradients' type: 2 widths; with an activation 2 widths of a group more
  void* kept = nullptr;  // not null: [rows, 2, width] in the place of dweight and dbias, see NormSums
};

// dweight += the sums of normed x · dy, dbias += those of dy, from the rows that layer_norm_backward kept; to begin at some
// column, each pointer is moved on.
struct NormSums {
  const void* kept;  // of the gradients' type, [rows, 2, width]: normed x, dy
  std::int64_t rows, width, columns;
  void* dweight;
  void* dbias;
};

struct IndexArguments {
  Matrix in;
  const std::int32_t* index;
  std::int64_t count;
  double scale;
  const void* row_scale;  // null: 1
  Matrix out;
};

struct LossArguments {
  Matrix logits;
  const std::int32_t* targets;
  double* row_loss;
  double scale;
  bool gradient;
};

struct UpdateArguments {
  std::int64_t count;
  void* value;
  float* master;     // null: the value itself
  const void* grad;  // f32 (f64 for f64)
  void* m;
  void* v;
  double learning_rate, correction, gradient_scale;  // gradient_scale: clipping included
  double beta1, beta2, eps, weight_decay;
};

struct FinishArguments {
  Matrix sum;  // of the wide type; may be `out` or `pre_activation`
  const void* bias;
  Matrix residual;  // data null: none
  Pointwise activation;
  Matrix pre_activation;  // data null: not kept
  Matrix out;
};

// Each row's columns by index.
struct ColumnArguments {
  Matrix in;
  const std::int32_t* index;
  const void* scale;  // null: 1
  Matrix out;
};

// Rows of a causal softmax: row r sees the columns c <= r + first. `scores` is of the wide type.
struct SoftmaxArguments {
  Matrix scores;  // forward: used up; may be `out`
  std::int64_t first;
  double scale;   // of the scores
  void* log_sum;  // [rows] of the wide type
  Matrix out;     // probabilities, 0 in the columns that are not seen
  Matrix dout;    // backward from here: of the wide type, used up; may be `dscores`
  Matrix dscores;
};

// Kernels over values of one type. "wide" is f64 for f64 and f32 for all others.
struct Kernels {
  void (*fill)(Matrix out, double value);
  void (*add)(Matrix a, Matrix b, Matrix out);
  void (*activate)(Pointwise kind, Matrix in, Matrix out);
  void (*activate_backward)(Pointwise kind, Matrix in, Matrix dout, Matrix din);
  void (*finish)(const FinishArguments& a);  // out = act(sum + bias + residual)
  void (*gate)(const GateArguments& a);
  void (*gate_backward)(const GateArguments& a);
  void (*layer_norm)(const NormArguments& a);
  void (*layer_norm_backward)(const NormArguments& a);
  void (*layer_norm_sums)(const NormSums& a);
  void (*sum_rows)(Matrix x, void* wide_add_to);
  void (*dropout)(Matrix in, double rate, std::uint64_t key, std::int64_t first_row, Matrix residual, Matrix out);
  void (*jitter)(Matrix in, double amount, std::uint64_t key, std::int64_t first_row, Matrix out);
  void (*gather_rows)(const IndexArguments& a);
  void (*scatter_add_rows)(const IndexArguments& a);
  void (*scatter_add_rows_wide)(const IndexArguments& a);
  void (*row_dots)(Matrix a, Matrix b, const std::int32_t* index, void* wide_out);
  void (*cross_entropy)(const LossArguments& a);
  double (*sum)(Matrix x);
  double (*sum_of_squares)(Matrix x);
  void (*adamw)(const UpdateArguments& a);
  void (*sigmoid)(const void* in, void* out, std::int64_t count);
  // The columns c <= row + offset: copied, with zeros in the others; or added to `out`, the others untouched.
  void (*copy_lower)(Matrix in, std::int64_t offset, Matrix out);
  void (*add_lower)(Matrix in, std::int64_t offset, Matrix out);
  void (*gather_columns)(const ColumnArguments& a);
  void (*scatter_columns)(const ColumnArguments& a);
  void (*column_dots)(Matrix a, Matrix b, void* wide_out);
  void (*causal_softmax)(const SoftmaxArguments& a);           // writes log_sum and out
  void (*causal_softmax_backward)(const SoftmaxArguments& a);  // from log_sum: writes out and dscores
};

struct KernelSet {
  const char* name;
  Kernels values[4];  // by place_of
  void (*convert[4][4])(Matrix from, Matrix to);  // [from][to]
};

int place_of(DType type);  // f64, f32, bf16, f16: 0 to 3; -1 for types that are not computed with

const KernelSet& kernels_baseline();
const KernelSet& kernels_avx2();    // x86-64-v3
const KernelSet& kernels_avx512();  // x86-64-v4
// "" is the widest this processor has; throws Error when it lacks the one asked for.
const KernelSet& kernels_named(const char* isa);

}  // namespace smlp::cpu
