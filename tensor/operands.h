// What the verbs of a Backend take: views with what is to be made of them, call by call. Owned by the caller, read during the
// call alone. Apart from tensor/backend.h for the sake of kernels, whose compiler reads each header once for every kind of GPU.
#pragma once

#include <cstdint>

#include "tensor/tensor_view.h"

namespace smlp {

enum class Activation : std::uint8_t { none, gelu_tanh, gelu, relu };

// May an index name a row twice? What the caller knows spares a GPU a sort.
enum class Repeats : std::uint8_t { possible, none };

// out = act(op(a) · op(b) + bias + residual), or out += op(a) · op(b) when `accumulate`.
// a, b, out: matrices, rows may be strided. bias: [columns of out]. residual: as out.
// out may have a wider type than a and b (weight gradients: bf16 · bf16 -> f32).
// With an activation, `pre_activation` (shape of out) receives what the activation was applied to.
// In a backward pass:
//  * with `activation_backward`, out = act'(pre_activation) · (op(a) · op(b)), element by element: pre_activation is
//    read, and there is no bias, residual or accumulate.
//  * bias_gradient [columns of a] += the sums of a's columns, for a weight gradient (transpose_a), where a is the
//    gradient of what the bias was added to. Its type is that of gradients.
struct Matmul {
  TensorView a, b, out;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
  TensorView bias{}, residual{};
  Activation activation = Activation::none;
  TensorView pre_activation{};
  bool activation_backward = false;
  TensorView bias_gradient{};
};

// The causal token-mixing product of the spatial gating unit: for every sequence b and channel c of group g,
//   out[b, t, c] = sum over s <= t of weight[g, t, s] · v[b, s, c].
// weight [groups, T', T'] with T' >= T; channels are cut into `groups` contiguous parts; v and out [B, T, C]
// (may be strided). Only the lower triangle of weight is read, and the upper half costs no work.
struct SpatialProduct {
  TensorView weight, v, out;
};

// Causal self-attention, head by head: the channels are cut into `heads` contiguous parts of d, and for each
//   out[b, t] = sum over s <= t of softmax_s(query[b, t] · key[b, s] / sqrt(d)) · value[b, s].
// query, key, value, out: [B, T, C], may be strided. log_sum [B, heads, T] (f32; f64 for f64): the logarithm of each
// row's sum of exponentials, from which the backward pass makes the probabilities again, so that they are never kept.
struct Attention {
  TensorView query, key, value, out, log_sum;
  std::int64_t heads = 1;
};

// The gate of the spatial gating unit: out = act(u) · (z + bias[g, t]). u, z and out [B, T, C], may be strided; bias
// [groups, T], the channels are cut into `groups` contiguous parts.
struct Gating {
  TensorView u{}, z{}, bias{}, out{};
  Activation activation = Activation::none;
};

// Each row of act(x) is cut into `groups` contiguous parts, normalised apart (eps 1e-5): x [R, C], weight and bias [C],
// or [L, C]: a line for each of L equal runs of rows, as experts have them (or empty: 1 and 0), mean and
// inverse_deviation [R, groups] in f32 (f64 for f64).
struct Normalisation {
  TensorView x{}, weight{}, bias{};
  std::int64_t groups = 1;
  TensorView mean{}, inverse_deviation{};
  Activation activation = Activation::none;
};

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.98, eps = 1e-8;
  double weight_decay = 0.0;
  double clip_norm = 0.0;  // 0: off
};

// Scalars of a step that live with the device (f64), so that nothing stale can be baked into a recorded step.
struct StepControl {
  static constexpr std::int64_t learning_rate = 0;
  static constexpr std::int64_t correction = 1;      // sqrt(1 - beta2^n) / (1 - beta1^n), n counted from 1
  static constexpr std::int64_t squared_norm = 2;    // of the gradient as stored, whole model
  static constexpr std::int64_t gradient_scale = 3;  // gradients are multiplied by this first (1 / loss scale)
  static constexpr std::int64_t size = 4;
};

// Where a micro-batch stands in the streams of random numbers (i64), with the device for the same reason.
struct StreamPlace {
  static constexpr std::int64_t step = 0;
  static constexpr std::int64_t first_row = 1;  // of its tokens, in the global batch
  static constexpr std::int64_t size = 2;
};

// `rows` adjacent rows, from row `from` of the input to row `to` of the output.
struct RowBlock {
  std::int64_t from, to, rows;
};

// `from` is contiguous; `host`: as many bytes.
struct Download {
  TensorView from;
  void* host;
};

}  // namespace smlp
