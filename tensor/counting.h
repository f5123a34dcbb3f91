// A backend that computes nothing and adds up: bytes held, multiply-adds of products. Its addresses lead
// nowhere, so a model of any size "runs" on it in no time, through the same layers as in training.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "tensor/backend.h"

namespace smlp {

// Multiply-adds of matrix-like products. `paper` counts the causal token mixing as the full square, as
// published counts do; `executed` counts the triangle that is really computed.
struct MultiplyAdds {
  std::int64_t paper = 0, executed = 0;
};

class CountingBackend : public Backend {
 public:
  // `rows_at_once`: of the backend that is counted for.
  explicit CountingBackend(std::int64_t rows_at_once = rows_at_once_on_hosts) : rows_at_once_(rows_at_once) {}

  std::int64_t rows_at_once() const noexcept override { return rows_at_once_; }
  std::int64_t bytes_now() const noexcept { return now_; }
  std::int64_t bytes_peak() const noexcept { return peak_; }
  std::int64_t allocations() const noexcept { return allocations_; }
  const MultiplyAdds& multiply_adds() const noexcept { return multiply_adds_; }

  void* allocate(std::int64_t bytes) override;
  void release(void* memory) noexcept override;
  void upload(const void*, TensorView) override {}
  void download(TensorView from, void* host) override;  // zeros
  void fill(TensorView, double) override {}
  void copy(TensorView, TensorView) override {}
  void copy_rows(TensorView, TensorView, std::span<const RowBlock>) override {}
  void synchronize() override {}

  void matmul(const Matmul& m) override;
  void spatial(const SpatialProduct& p) override { count(p); }
  void spatial_backward_input(const SpatialProduct& p) override { count(p); }
  void spatial_backward_weight(const SpatialProduct& p) override { count(p); }
  void attention(const Attention& a) override { count(a, 2); }
  void attention_backward(const Attention& a, TensorView, TensorView, TensorView, TensorView) override {
    count(a, 5);
  }

  void add(TensorView, TensorView, TensorView) override {}
  void activate(Activation, TensorView, TensorView) override {}
  void activate_backward(Activation, TensorView, TensorView, TensorView) override {}
  void gate(const Gating&) override {}
  void gate_backward(const Gating&, TensorView, TensorView, TensorView, TensorView) override {}
  void layer_norm(const Normalisation&, TensorView) override {}
  void layer_norm_backward(const Normalisation&, TensorView, TensorView, TensorView, TensorView, TensorView) override {}
  void sum_rows(TensorView, TensorView) override {}
  void dropout(TensorView, double, std::uint64_t, TensorView, TensorView, TensorView) override {}
  void jitter(TensorView, double, std::uint64_t, std::int64_t, TensorView) override {}

  void gather_rows(TensorView, TensorView, double, TensorView, TensorView) override {}
  void scatter_add_rows(TensorView, TensorView, Repeats, double, TensorView, TensorView) override {}
  void row_dots(TensorView, TensorView, TensorView, TensorView) override {}

  void gather_columns(TensorView, TensorView, TensorView, TensorView) override {}
  void scatter_columns(TensorView, TensorView, TensorView, TensorView) override {}
  void column_dots(TensorView, TensorView, TensorView) override {}

  void assign_balanced(TensorView, std::int64_t, TensorView, TensorView) override {}
  // As even as it can be.
  void assign_greedy(TensorView scores, TensorView, std::span<std::int64_t> rows_of_expert) override;
  void sigmoid_of_slots(TensorView, TensorView, std::span<const std::int64_t>, TensorView) override {}
  void sigmoid_of_slots_backward(TensorView, TensorView, TensorView, std::span<const std::int64_t>,
                                 TensorView) override {}
  void softmax_of_slots(TensorView, TensorView, std::span<const std::int64_t>, TensorView) override {}
  void softmax_of_slots_backward(TensorView, TensorView, TensorView, std::span<const std::int64_t>,
                                 TensorView) override {}
  void look_up(TensorView, TensorView, TensorView) override {}
  void choose_experts(const ChooseExperts&) override {}
  void balance_of_choices(const BalanceOfChoices&) override {}
  void place_tokens(const PlaceTokens& p) override;  // as even as it can be
  void weigh_slots(const WeighSlots&) override {}
  void choices_backward(const ChoicesBackward&) override {}

  void cross_entropy(TensorView, TensorView, TensorView, TensorView, bool) override {}
  void sum(TensorView, TensorView) override {}
  void sum_of_squares(TensorView, TensorView) override {}
  void adamw(const AdamWSettings&, TensorView, TensorView, TensorView, TensorView, TensorView,
             TensorView) override {}

 private:
  void count(const SpatialProduct& p);
  void count(const Attention& a, std::int64_t products);

  std::int64_t rows_at_once_;
  std::unordered_map<void*, std::int64_t> held_;
  std::uintptr_t next_ = std::uintptr_t{1}
                         << 57;  // where no memory is: following an address ends the process
  std::int64_t now_ = 0, peak_ = 0, allocations_ = 0;
  MultiplyAdds multiply_adds_;
};

}  // namespace smlp
