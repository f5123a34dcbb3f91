// The coarse verbs that touch memory: all the arithmetic of the system, one virtual call a kernel.
// A Backend owns its stream, library handles and workspace; the Engine owns the Backend. Calls are ordered;
// they may run asynchronously until synchronize() or download(). Verbs write their outputs (=) unless the
// name of an argument says that they add to it. Inputs and outputs of one call must not overlap unless the
// verb says "may be in place". Values of one call share a type (f64, f32, bf16, f16) unless said otherwise;
// gradients of parameters are f32 where values are bf16 or f16. Sums are taken in f32 or better, in a fixed order:
// the same call on the same shapes, in memory that is aligned alike, gives the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "tensor/expert_choice.h"
#include "tensor/operands.h"
#include "tensor/phase_clock.h"
#include "tensor/recording.h"
#include "tensor/tensor_view.h"

namespace smlp {

class Backend {
 public:
  virtual ~Backend() = default;

  // --- memory -------------------------------------------------------------------------------------------
  virtual void* allocate(std::int64_t bytes) = 0;  // 64-byte aligned; throws Error with the size asked for
  virtual void release(void* memory) noexcept = 0;
  // host: contiguous elements of to's type, free again on return where allocate_host() did not give it.
  virtual void upload(const void* host, TensorView to) = 0;
  virtual void download(TensorView from, void* host) = 0;       // waits
  // Many downloads, of what the calls before leave, beside what is enqueued next: a device makes them one behind the
  // other on a stream of its own, best into memory of allocate_host(). Until put_behind_downloads() nothing that is
  // enqueued may write to what they read; until wait_for_downloads() the host's memory stays as it is.
  virtual void start_downloads(std::span<const Download> downloads);  // without a device: done when it returns
  virtual void put_behind_downloads() {}  // what is enqueued from now on runs after them; the host does not wait
  virtual void wait_for_downloads() {}    // the host, in any thread
  virtual void fill(TensorView out, double value) = 0;
  virtual void copy(TensorView from, TensorView to) = 0;        // same shape; strides and types may differ
  virtual void copy_rows(TensorView from, TensorView to, std::span<const RowBlock> blocks) = 0;
  virtual void synchronize() = 0;
  // Seconds that the calls in `work` take, by the clock of whoever computes: events on a device. Waits before and after.
  virtual double timed(const std::function<void()>& work);
  // Does the work, part after part; a backend that can records its calls and hands them over at once when the same is
  // asked for again (tensor/recording.h, which says what work and `baked_in` must be). The same bits either way.
  virtual void repeat(Recording& recording, std::span<const std::int64_t> baked_in, std::span<const WorkPart> work);
  virtual PhaseClock& phase_clock() { return host_clock_; }  // of a step, by the same clock; waits for nothing
  // May the host, and MPI, follow the addresses that allocate() gives?
  virtual bool in_host_memory() const noexcept { return true; }
  // Memory of the host for upload() and download(). A device reads it on its own: what was handed to upload() stays
  // untouched until the backend is waited for. Throws Error(unavailable) or std::bad_alloc; release_host() waits for
  // what may still use it.
  virtual void* allocate_host(std::int64_t bytes);
  virtual void release_host(void* memory) noexcept;
  // What every process of this host calls the device; empty: its processors.
  virtual std::string device_id() const { return ""; }
  // Rows beside which a product's time to fetch its other factor, and to add to that one's gradient, hardly counts.
  static constexpr std::int64_t rows_at_once_on_hosts = 512, rows_at_once_on_gpus = 4096;
  virtual std::int64_t rows_at_once() const noexcept { return rows_at_once_on_hosts; }
  // Who computes attention, and why not another, as a sentence for a log; empty: nobody yet, or there is no choice.
  virtual std::string attention_by() const { return ""; }

  // --- products -----------------------------------------------------------------------------------------
  virtual void matmul(const Matmul& m) = 0;
  // One product an expert. Rows of `a` (and of out/residual/pre_activation, or of b for a weight gradient) are
  // grouped by expert: rows[e] adjacent rows each, zero allowed. b [E, ...], bias and bias_gradient [E, n] are stacked.
  //   a [R, k], b [E, k, n] or transposed -> out [R, n];      transpose_a: a [R, m], b [R, n] -> out [E, m, n]
  // The default body calls matmul() expert by expert.
  virtual void matmul_grouped(const Matmul& m, std::span<const std::int64_t> rows);
  virtual void spatial(const SpatialProduct& p) = 0;
  // dv[b, s, c] = sum over t >= s of weight[g, t, s] · dout[b, t, c]: p.v is the output, p.out the input dout.
  virtual void spatial_backward_input(const SpatialProduct& p) = 0;
  // dweight (p.weight, lower triangle only) += sum over b and c of dout[b, t, c] · v[b, s, c]; p.out is dout.
  virtual void spatial_backward_weight(const SpatialProduct& p) = 0;
  virtual void attention(const Attention& a) = 0;  // writes out and log_sum
  // `a` as attention() left it; dquery, dkey and dvalue overlap nothing of it.
  virtual void attention_backward(const Attention& a, TensorView dout, TensorView dquery, TensorView dkey,
                                  TensorView dvalue) = 0;

  // --- pointwise and rows -------------------------------------------------------------------------------
  virtual void add(TensorView a, TensorView b, TensorView out) = 0;  // may be in place
  virtual void activate(Activation kind, TensorView in, TensorView out) = 0;
  virtual void activate_backward(Activation kind, TensorView in, TensorView dout, TensorView din) = 0;  // may be in place on dout
  virtual void gate(const Gating& g) = 0;
  // du = act'(u) · dout · (z + bias), dz = act(u) · dout, dbias[g, t] += sum over b and c of dz. g.out is not looked at;
  // z and dz may be the same view.
  virtual void gate_backward(const Gating& g, TensorView dout, TensorView du, TensorView dz, TensorView dbias) = 0;
  virtual void layer_norm(const Normalisation& n, TensorView out) = 0;  // writes mean and inverse_deviation too
  // `n` as layer_norm() left it, but for its bias, which is not looked at. dx = act'(x) · backward(dy) + residual
  // (residual may be empty; dx may be residual or dy itself); dweight, dbias += (empty when weight is, else of its shape).
  virtual void layer_norm_backward(const Normalisation& n, TensorView dy, TensorView residual, TensorView dx,
                                   TensorView dweight, TensorView dbias) = 0;
  virtual void sum_rows(TensorView x, TensorView add_to) = 0;  // add_to[c] += sum over rows; wider type allowed
  // Inverted dropout, plus residual (which may be empty; out may be in or residual): keeps element (row, c) when
  // dropout_keeps(key, (first_row + row) · C + c, rate), scaled by 1 / (1 - rate); see tensor/dropout.h. key =
  // dropout_key(stream, step); `place` i64 [StreamPlace::size] has the step and first_row. The same call with dy, without
  // residual, gives the backward pass.
  virtual void dropout(TensorView in, double rate, std::uint64_t stream, TensorView place, TensorView residual,
                       TensorView out) = 0;
  // out = in · U(1 - amount, 1 + amount), may be in place: each element by word (first_row + row) · C + c of dropout's
  // stream, as a fraction. The same call with dy gives the backward pass.
  virtual void jitter(TensorView in, double amount, std::uint64_t key, std::int64_t first_row, TensorView out) = 0;

  // --- rows by index (i32; negative: no row) --------------------------------------------------------------
  // out[s] = scale · row_scale[s] · in[index[s]]; zeros where index[s] < 0. row_scale may be empty.
  virtual void gather_rows(TensorView in, TensorView index, double scale, TensorView row_scale,
                           TensorView out) = 0;
  // add_to[index[s]] += scale · row_scale[s] · in[s], in order of s; add_to may have a wider type. Where `repeats` says that
  // the index names no row twice, there is no order to keep; one that is named twice all the same gets either sum, or both.
  virtual void scatter_add_rows(TensorView in, TensorView index, Repeats repeats, double scale, TensorView row_scale,
                                TensorView add_to) = 0;
  // out[s] = <a[s], b[index[s]]>, 0 where index[s] < 0; out [rows of a] in f32 (f64 for f64).
  virtual void row_dots(TensorView a, TensorView b, TensorView index, TensorView out) = 0;

  // --- columns by index (i32 [B, C]: for each sequence b a permutation of the columns) ---------------------
  // out[b, t, j] = scale[b, j] · in[b, t, index[b, j]]; in and out [B, T, C]; scale [B, C], or empty: 1.
  virtual void gather_columns(TensorView in, TensorView index, TensorView scale, TensorView out) = 0;
  // out[b, t, index[b, j]] = scale[b, j] · in[b, t, j].
  virtual void scatter_columns(TensorView in, TensorView index, TensorView scale, TensorView out) = 0;
  // out[b, j] = sum over t of a[b, t, j] · b[b, t, j]; out [B, C], f32 (f64 for f64).
  virtual void column_dots(TensorView a, TensorView b, TensorView out) = 0;

  // --- routing (the decision itself; who sits in which slot) ----------------------------------------------
  // scores [S, E], S cut into `groups` equal runs of tokens, each assigned apart by the balanced assignment
  // (tensor/balanced_assignment.h). token_of_slot i32 [E, groups, capacity], capacity = ceil(S/groups/E): token
  // rows in ascending order, -1 in unused slots. rounds i32 [groups]: auction rounds; negative: the cap was met.
  virtual void assign_balanced(TensorView scores, std::int64_t groups, TensorView token_of_slot,
                               TensorView rounds) = 0;
  // Every token to its best expert (lower index wins ties), stable by expert. token_of_slot i32 [S];
  // rows_of_expert is read by the host: waits.
  virtual void assign_greedy(TensorView scores, TensorView token_of_slot,
                             std::span<std::int64_t> rows_of_expert) = 0;
  // alpha[s] = sigmoid(scores[token_of_slot[s], e]) with e the expert of slot s by rows_of_expert; 0 in unused.
  virtual void sigmoid_of_slots(TensorView scores, TensorView token_of_slot,
                                std::span<const std::int64_t> rows_of_expert, TensorView alpha) = 0;
  // dscores[token, e] += dalpha[s] · alpha[s] · (1 - alpha[s]).
  virtual void sigmoid_of_slots_backward(TensorView alpha, TensorView dalpha, TensorView token_of_slot,
                                         std::span<const std::int64_t> rows_of_expert, TensorView dscores) = 0;
  // alpha[s] = softmax(scores[token_of_slot[s]])[e], as sigmoid_of_slots; scores and alpha f32 (f64 for f64).
  virtual void softmax_of_slots(TensorView scores, TensorView token_of_slot,
                                std::span<const std::int64_t> rows_of_expert, TensorView alpha) = 0;
  // dscores[token, f] += dalpha[s] · alpha[s] · ((f == e) - softmax(scores[token])[f]).
  virtual void softmax_of_slots_backward(TensorView scores, TensorView dalpha, TensorView token_of_slot,
                                         std::span<const std::int64_t> rows_of_expert, TensorView dscores) = 0;
  virtual void look_up(TensorView table, TensorView index, TensorView out) = 0;  // i32: out[s] = table[index[s]]
  // Softmax gates: tensor/expert_choice.h.
  virtual void choose_experts(const ChooseExperts& c) = 0;
  virtual void balance_of_choices(const BalanceOfChoices& b) = 0;
  virtual void place_tokens(const PlaceTokens& p) = 0;
  virtual void weigh_slots(const WeighSlots& w) = 0;
  virtual void choices_backward(const ChoicesBackward& c) = 0;

  // --- loss and update ------------------------------------------------------------------------------------
  // row_loss[r] (f64) = logsumexp(logits[r]) - logits[r, target[r]]; 0 where target[r] < 0. With `gradient`,
  // logits become scale[0] · d row_loss / d logits in place (scale: f64 [1]).
  virtual void cross_entropy(TensorView logits, TensorView targets, TensorView row_loss, TensorView scale,
                             bool gradient) = 0;
  virtual void sum(TensorView x, TensorView add_to) = 0;             // f64 add_to[0] += sum of x
  virtual void sum_of_squares(TensorView x, TensorView add_to) = 0;  // f64 add_to[0] += sum of x²
  // AdamW over flat views of equal length, decoupled decay first (algorithms of fairseq's adam):
  //   p -= lr·wd·p;  m, v moving averages;  p -= lr·correction · m / (sqrt(v) + eps)
  // with the gradient scaled by gradient_scale · min(1, clip / (norm + 1e-6)). `control` f64 [StepControl::size].
  // Changes nothing when squared_norm is not finite. `master` (f32) is p where values are bf16/f16, else empty.
  virtual void adamw(const AdamWSettings& settings, TensorView value, TensorView master, TensorView grad,
                     TensorView m, TensorView v, TensorView control) = 0;

 private:
  HostClock host_clock_;
};

struct CpuOptions {
  int threads = 1;
  std::string isa = "";  // "": the best this CPU has; "avx512", "avx2", "baseline" to test a narrower one
};
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options = {});
// What this processor offers the CPU backend: "avx512+bf16", "avx2", "baseline".
std::string cpu_isa();

// Who computes what a product ends with on a GPU, where the library can: it, in the product's own pass, or own kernels. Each
// value leaves them more than the one before: nothing, gradients of biases, GELU and its gradient, all.
enum class ProductEnds { library, own_bias_gradient, own_gelu, own };

struct CudaOptions {
  int device = 0;
  bool tf32 = false;  // f32 products by TF32: factors rounded to 11 significant bits, sums in f32 (Ampere and later)
  ProductEnds product_ends = ProductEnds::own_bias_gradient;
  bool deterministic = true;  // the same bits each time; false: a library's attention may add up its gradients in any order
};
// Throws Error(unavailable) where there is no such GPU, and in a build without CUDA (tensor/no_cuda.cpp).
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options = {});
// GPUs that this process sees; 0 without a driver, and in a build without CUDA.
int cuda_devices();
// Of one of them: 70 of a V100, 90 of an H200.
int cuda_capability(int device);

}  // namespace smlp
