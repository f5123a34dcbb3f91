// A backend with nothing but memory, whose addresses fault on the host: shows that a communicator moves bytes
// through the backend that owns them.
#pragma once

#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "tensor/backend.h"

namespace smlp::test {

class FarawayBackend : public Backend {
 public:
  static constexpr std::uintptr_t distance = std::uintptr_t{1} << 60;  // never an address of user space

  void* allocate(std::int64_t bytes) override { return shift(std::malloc(static_cast<std::size_t>(bytes))); }
  void release(void* memory) noexcept override { std::free(here(memory)); }
  void upload(const void* host, TensorView to) override {
    move(host, here(to.data), to);
    ++uploads;
  }
  void download(TensorView from, void* host) override {
    move(here(from.data), host, from);
    ++downloads;
  }
  void copy(TensorView from, TensorView to) override {
    expect(from.shape == to.shape && from.dtype == to.dtype, "copy: shapes or types differ");
    move(here(from.data), here(to.data), from);
    ++copies;
  }
  void* allocate_host(std::int64_t bytes) override {
    ++host_blocks;
    ++host_blocks_held;
    return Backend::allocate_host(bytes);
  }
  void release_host(void* memory) noexcept override {
    host_blocks_held -= memory ? 1 : 0;
    Backend::release_host(memory);
  }
  int copies = 0, uploads = 0, downloads = 0, host_blocks = 0, host_blocks_held = 0;

  void fill(TensorView, double) override { no(); }
  void copy_rows(TensorView, TensorView, std::span<const RowBlock>) override { no(); }
  void synchronize() override {}
  void matmul(const Matmul&) override { no(); }
  void spatial(const SpatialProduct&) override { no(); }
  void spatial_backward_input(const SpatialProduct&) override { no(); }
  void spatial_backward_weight(const SpatialProduct&) override { no(); }
  void attention(const Attention&) override { no(); }
  void attention_backward(const Attention&, TensorView, TensorView, TensorView, TensorView) override { no(); }
  void add(TensorView, TensorView, TensorView) override { no(); }
  void activate(Activation, TensorView, TensorView) override { no(); }
  void activate_backward(Activation, TensorView, TensorView, TensorView) override { no(); }
  void gate(const Gating&) override { no(); }
  void gate_backward(const Gating&, TensorView, TensorView, TensorView, TensorView) override { no(); }
  void layer_norm(const Normalisation&, TensorView) override { no(); }
  void layer_norm_backward(const Normalisation&, TensorView, TensorView, TensorView, TensorView, TensorView) override {
    no();
  }
  void sum_rows(TensorView, TensorView) override { no(); }
  void dropout(TensorView, double, std::uint64_t, TensorView, TensorView, TensorView) override { no(); }
  void jitter(TensorView, double, std::uint64_t, std::int64_t, TensorView) override { no(); }
  void gather_rows(TensorView, TensorView, double, TensorView, TensorView) override { no(); }
  void scatter_add_rows(TensorView, TensorView, Repeats, double, TensorView, TensorView) override { no(); }
  void row_dots(TensorView, TensorView, TensorView, TensorView) override { no(); }
  void gather_columns(TensorView, TensorView, TensorView, TensorView) override { no(); }
  void scatter_columns(TensorView, TensorView, TensorView, TensorView) override { no(); }
  void column_dots(TensorView, TensorView, TensorView) override { no(); }
  void softmax_of_slots(TensorView, TensorView, std::span<const std::int64_t>, TensorView) override { no(); }
  void softmax_of_slots_backward(TensorView, TensorView, TensorView, std::span<const std::int64_t>,
                                 TensorView) override {
    no();
  }
  void assign_balanced(TensorView, std::int64_t, TensorView, TensorView) override { no(); }
  void assign_greedy(TensorView, TensorView, std::span<std::int64_t>) override { no(); }
  void sigmoid_of_slots(TensorView, TensorView, std::span<const std::int64_t>, TensorView) override { no(); }
  void sigmoid_of_slots_backward(TensorView, TensorView, TensorView, std::span<const std::int64_t>,
                                 TensorView) override {
    no();
  }
  void look_up(TensorView, TensorView, TensorView) override { no(); }
  void choose_experts(const ChooseExperts&) override { no(); }
  void balance_of_choices(const BalanceOfChoices&) override { no(); }
  void place_tokens(const PlaceTokens&) override { no(); }
  void weigh_slots(const WeighSlots&) override { no(); }
  void choices_backward(const ChoicesBackward&) override { no(); }
  void cross_entropy(TensorView, TensorView, TensorView, TensorView, bool) override { no(); }
  void sum(TensorView, TensorView) override { no(); }
  void sum_of_squares(TensorView, TensorView) override { no(); }
  void adamw(const AdamWSettings&, TensorView, TensorView, TensorView, TensorView, TensorView,
             TensorView) override {
    no();
  }

 private:
  static void* shift(void* near) {
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(near) + distance);
  }
  static void* here(void* far) noexcept {
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(far) - distance);
  }
  static void move(const void* from, void* to, const TensorView& view) {
    expect(view.contiguous(), "the view is not contiguous");
    if (view.bytes() > 0) std::memmove(to, from, static_cast<std::size_t>(view.bytes()));
  }
  static void no() { expect(false, "this backend has memory only"); }
};

}  // namespace smlp::test
