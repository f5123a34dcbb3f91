// The backend on host memory: checks the views of every verb, then calls oneDNN, OpenBLAS or the own kernels.
// Owned by whoever called make_cpu_backend(); calls finish before they return. Not shared by threads.
#pragma once

#include <vector>

#include "tensor/backend.h"
#include "tensor/balanced_assignment.h"
#include "tensor/checks.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/products.h"
#include "tensor/cpu/team.h"
#include "tensor/sinkhorn.h"

namespace smlp::cpu {

void float_type(const char* verb, const TensorView& view);  // a type that the CPU computes in

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options);

  void* allocate(std::int64_t bytes) override;
  void release(void* memory) noexcept override;
  void upload(const void* host, TensorView to) override;
  void download(TensorView from, void* host) override;
  void fill(TensorView out, double value) override;
  void copy(TensorView from, TensorView to) override;
  void copy_rows(TensorView from, TensorView to, std::span<const RowBlock> blocks) override;
  void synchronize() override {}

  void matmul(const Matmul& m) override;
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
  void dropout(TensorView in, double rate, std::uint64_t stream, TensorView place, TensorView residual,
               TensorView out) override;
  void jitter(TensorView in, double amount, std::uint64_t key, std::int64_t first_row, TensorView out) override;

  void gather_rows(TensorView in, TensorView index, double scale, TensorView row_scale, TensorView out) override;
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
  void sigmoid_of_slots(TensorView scores, TensorView token_of_slot, std::span<const std::int64_t> rows_of_expert,
                        TensorView alpha) override;
  void sigmoid_of_slots_backward(TensorView alpha, TensorView dalpha, TensorView token_of_slot,
                                 std::span<const std::int64_t> rows_of_expert, TensorView dscores) override;
  void softmax_of_slots(TensorView scores, TensorView token_of_slot, std::span<const std::int64_t> rows_of_expert,
                        TensorView alpha) override;
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
  void adamw(const AdamWSettings& settings, TensorView value, TensorView master, TensorView grad, TensorView m,
             TensorView v, TensorView control) override;

 private:
  const Kernels& kernels(DType type) const;
  // body(std::array<Matrix, n>) for parts of views of one shape; one element's result must not depend on another's.
  template <std::size_t n, class Body>
  void elementwise(const std::array<TensorView, n>& views, std::int64_t work, const Body& body) const {
    std::array<DType, n> types;
    for (std::size_t i = 0; i < n; ++i) types[i] = views[i].dtype;
    for_each_matrix<n>(views, [&](const auto& m) { team_.template share_elements<n>(m, types, work, body); });
  }
  template <class GoBack>
  void layer_norm_backward_in_blocks(const NormArguments& a, DType type, std::int64_t each, const GoBack& go_back);
  void add_rows(const TensorView& x, void* total) const;  // sum_rows() in the wide type
  void convert(const Matrix& from, DType from_type, const Matrix& to, DType to_type) const;
  double value_of(const TensorView& view, std::int64_t offset) const;
  void load_scores(const TensorView& scores, std::int64_t first, std::int64_t count);
  void share_out(const ChooseExperts& c);
  void order_choices(const PlaceTokens& p, std::int64_t first, std::int64_t count);
  void* masked_weight(const TensorView& weight, std::int64_t g, std::int64_t length);
  void* scratch(std::int64_t bytes) { return scratch_.take(bytes); }  // valid until the next call of scratch()

  const KernelSet& set_;
  const Team team_;
  Products products_;
  BalancedAssignment assignment_;
  Sinkhorn sinkhorn_;
  std::vector<double> scores_, gates_, weights_, logits_;
  std::vector<std::int64_t> starts_, counts_;
  std::vector<std::int32_t> rows_, order_;
  std::vector<std::int32_t> slots_;
  Workspace scratch_;
};

}  // namespace smlp::cpu
