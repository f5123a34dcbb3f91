// The backend on a CUDA device: checks the views of every verb, then starts products of cuBLASLt and own
// kernels on one stream. Nothing waits but download(), synchronize() and the verbs whose counts the host
// reads. Owned by whoever called make_cuda_backend(). Not shared by threads.
#pragma once

#include <string>
#include <vector>

#include "tensor/arena.h"
#include "tensor/backend.h"
#include "tensor/cuda/device.h"
#include "tensor/cuda/device_clock.h"
#include "tensor/cuda/flash_attention.h"
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/products.h"
#include "tensor/cuda/side_downloads.h"

namespace smlp {
struct SpatialSizes;
}

namespace smlp::cuda {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);
  ~CudaBackend() override;

  void* allocate(std::int64_t bytes) override;
  void release(void* memory) noexcept override;
  void upload(const void* host, TensorView to) override;
  void download(TensorView from, void* host) override;
  void start_downloads(std::span<const Download> downloads) override { downloads_.start(downloads); }
  void put_behind_downloads() override { downloads_.put_behind(); }
  void wait_for_downloads() override { downloads_.wait(); }
  void fill(TensorView out, double value) override;
  void copy(TensorView from, TensorView to) override;
  void copy_rows(TensorView from, TensorView to, std::span<const RowBlock> blocks) override;
  void synchronize() override;
  double timed(const std::function<void()>& work) override { return device_.timed(work); }
  void repeat(Recording& recording, std::span<const std::int64_t> baked_in, std::span<const WorkPart> work) override;
  PhaseClock& phase_clock() override { return clock_; }
  bool in_host_memory() const noexcept override { return false; }
  void* allocate_host(std::int64_t bytes) override;
  void release_host(void* memory) noexcept override;
  std::string device_id() const override { return device_.id(); }
  std::int64_t rows_at_once() const noexcept override { return rows_at_once_on_gpus; }
  std::string attention_by() const override { return flash_.sentence(); }
  cudaStream_t stream() const noexcept { return device_.stream(); }

  void matmul(const Matmul& m) override;
  void matmul_grouped(const Matmul& m, std::span<const std::int64_t> rows) override;
  void spatial(const SpatialProduct& p) override;
  void spatial_backward_input(const SpatialProduct& p) override;
  void spatial_backward_weight(const SpatialProduct& p) override;
  void attention(const Attention& a) override;
  void attention_backward(const Attention& a, TensorView dout, TensorView dquery, TensorView dkey,
                          TensorView dvalue) override;

  void add(TensorView a, TensorView b, TensorView out) override;
  void activate(Activation kind, TensorView in, TensorView out) override;
  void activate_backward(Activation kind, TensorView in, TensorView dout, TensorView din) override;
  void gate(const Gating& g) override;
  void gate_backward(const Gating& g, TensorView dout, TensorView du, TensorView dz, TensorView dbias) override;
  void layer_norm(const Normalisation& n, TensorView out) override;
  void layer_norm_backward(const Normalisation& n, TensorView dy, TensorView residual, TensorView dx,
                           TensorView dweight, TensorView dbias) override;
  void sum_rows(TensorView x, TensorView add_to) override;
  void dropout(TensorView in, double rate, std::uint64_t stream_key, TensorView place, TensorView residual,
               TensorView out) override;
  void jitter(TensorView in, double amount, std::uint64_t key, std::int64_t first_row,
              TensorView out) override;

  void gather_rows(TensorView in, TensorView index, double scale, TensorView row_scale,
                   TensorView out) override;
  void scatter_add_rows(TensorView in, TensorView index, Repeats repeats, double scale, TensorView row_scale,
                        TensorView add_to) override;
  void row_dots(TensorView a, TensorView b, TensorView index, TensorView out) override;

  void gather_columns(TensorView in, TensorView index, TensorView scale, TensorView out) override;
  void scatter_columns(TensorView in, TensorView index, TensorView scale, TensorView out) override;
  void column_dots(TensorView a, TensorView b, TensorView out) override;

  void assign_balanced(TensorView scores, std::int64_t groups, TensorView token_of_slot,
                       TensorView rounds) override;
  void assign_greedy(TensorView scores, TensorView token_of_slot,
                     std::span<std::int64_t> rows_of_expert) override;
  void sigmoid_of_slots(TensorView scores, TensorView token_of_slot,
                        std::span<const std::int64_t> rows_of_expert, TensorView alpha) override;
  void sigmoid_of_slots_backward(TensorView alpha, TensorView dalpha, TensorView token_of_slot,
                                 std::span<const std::int64_t> rows_of_expert, TensorView dscores) override;
  void softmax_of_slots(TensorView scores, TensorView token_of_slot,
                        std::span<const std::int64_t> rows_of_expert, TensorView alpha) override;
  void softmax_of_slots_backward(TensorView scores, TensorView dalpha, TensorView token_of_slot,
                                 std::span<const std::int64_t> rows_of_expert, TensorView dscores) override;
  void look_up(TensorView table, TensorView index, TensorView out) override;
  void choose_experts(const ChooseExperts& c) override;
  void balance_of_choices(const BalanceOfChoices& b) override;
  void place_tokens(const PlaceTokens& p) override;
  void weigh_slots(const WeighSlots& w) override;
  void choices_backward(const ChoicesBackward& c) override;

  void cross_entropy(TensorView logits, TensorView targets, TensorView row_loss, TensorView scale,
                     bool gradient) override;
  void sum(TensorView x, TensorView add_to) override;
  void sum_of_squares(TensorView x, TensorView add_to) override;
  void adamw(const AdamWSettings& settings, TensorView value, TensorView master, TensorView grad,
             TensorView m, TensorView v, TensorView control) override;

 private:
  void to_host(const void* device, void* host, std::int64_t bytes);  // waits
  void multiply(Product p);
  bool upload_as_words(const void* host, const TensorView& to);
  bool multiply_groups(const Matmul& m, const Product& p);
  void mask(TensorView weight, std::int64_t first, std::int64_t count, std::int64_t length, void* masked);
  void mix_tokens(const SpatialSizes& s, TensorView weight, TensorView in, TensorView out, bool transposed);
  void add_sum(const char* verb, const TensorView& x, bool squares, const TensorView& add_to);
  // Memory for the time of one verb. take() is on top of what was taken since begin().
  void begin() { scratch_.reset(); }
  template <class T>
  T* take(std::int64_t count);
  Sort take_order(std::int64_t count);      // without keys
  Sort take_sort(std::int64_t count);
  Sort take_wide_sort(std::int64_t count);

  Device device_;
  bool deterministic_;
  Products products_;
  std::vector<RowGroup> groups_;     // of the call
  std::vector<std::int64_t> words_;  // of the call, for the device
  FlashAttention flash_;
  SideDownloads downloads_;
  DeviceClock clock_;
  Arena scratch_{*this};
};

// What every verb asks of the types of its values.
void float_type(const char* verb, const TensorView& view);
Sequences sequences(const char* verb, const TensorView& view);

template <class T>
T* CudaBackend::take(std::int64_t count) {
  return static_cast<T*>(scratch_.take({count * static_cast<std::int64_t>(sizeof(T))}, DType::u8).data);
}

}  // namespace smlp::cuda
