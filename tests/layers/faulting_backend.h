// A CPU backend whose addresses fault on the host: every address it hands out lies where no process can
// have memory, and is translated back inside each verb. Code that follows one by itself ends with a signal.
#pragma once

#include <memory>

#include "tensor/backend.h"

namespace smlp::test {

class FaultingBackend final : public Backend {
 public:
  void* allocate(std::int64_t bytes) override { return moved(inner_->allocate(bytes), away); }
  void release(void* memory) noexcept override { inner_->release(moved(memory, -away)); }
  void upload(const void* host, TensorView to) override { inner_->upload(host, real(to)); }
  void download(TensorView from, void* host) override { inner_->download(real(from), host); }
  void fill(TensorView out, double value) override { inner_->fill(real(out), value); }
  void copy(TensorView from, TensorView to) override { inner_->copy(real(from), real(to)); }
  void copy_rows(TensorView from, TensorView to, std::span<const RowBlock> blocks) override {
    inner_->copy_rows(real(from), real(to), blocks);
  }
  void synchronize() override { inner_->synchronize(); }

  void matmul(const Matmul& m) override { inner_->matmul(real(m)); }
  void matmul_grouped(const Matmul& m, std::span<const std::int64_t> rows) override {
    inner_->matmul_grouped(real(m), rows);
  }
  void spatial(const SpatialProduct& p) override { inner_->spatial(real(p)); }
  void spatial_backward_input(const SpatialProduct& p) override { inner_->spatial_backward_input(real(p)); }
  void spatial_backward_weight(const SpatialProduct& p) override { inner_->spatial_backward_weight(real(p)); }
  void attention(const Attention& a) override { inner_->attention(real(a)); }
  void attention_backward(const Attention& a, TensorView dout, TensorView dquery, TensorView dkey,
                          TensorView dvalue) override {
    inner_->attention_backward(real(a), real(dout), real(dquery), real(dkey), real(dvalue));
  }

  void add(TensorView a, TensorView b, TensorView out) override { inner_->add(real(a), real(b), real(out)); }
  void activate(Activation kind, TensorView in, TensorView out) override {
    inner_->activate(kind, real(in), real(out));
  }
  void activate_backward(Activation kind, TensorView in, TensorView dout, TensorView din) override {
    inner_->activate_backward(kind, real(in), real(dout), real(din));
  }
  void gate(const Gating& g) override { inner_->gate(real(g)); }
  void gate_backward(const Gating& g, TensorView dout, TensorView du, TensorView dz, TensorView dbias) override {
    inner_->gate_backward(real(g), real(dout), real(du), real(dz), real(dbias));
  }
  void layer_norm(const Normalisation& n, TensorView out) override { inner_->layer_norm(real(n), real(out)); }
  void layer_norm_backward(const Normalisation& n, TensorView dy, TensorView residual, TensorView dx,
                           TensorView dweight, TensorView dbias) override {
    inner_->layer_norm_backward(real(n), real(dy), real(residual), real(dx), real(dweight), real(dbias));
  }
  void sum_rows(TensorView x, TensorView add_to) override { inner_->sum_rows(real(x), real(add_to)); }
  void dropout(TensorView in, double rate, std::uint64_t stream, TensorView place, TensorView residual,
               TensorView out) override {
    inner_->dropout(real(in), rate, stream, real(place), real(residual), real(out));
  }
  void jitter(TensorView in, double amount, std::uint64_t key, std::int64_t first_row,
              TensorView out) override {
    inner_->jitter(real(in), amount, key, first_row, real(out));
  }

  void gather_rows(TensorView in, TensorView index, double scale, TensorView row_scale,
                   TensorView out) override {
    inner_->gather_rows(real(in), real(index), scale, real(row_scale), real(out));
  }
  void scatter_add_rows(TensorView in, TensorView index, Repeats repeats, double scale, TensorView row_scale,
                        TensorView add_to) override {
    inner_->scatter_add_rows(real(in), real(index), repeats, scale, real(row_scale), real(add_to));
  }
  void row_dots(TensorView a, TensorView b, TensorView index, TensorView out) override {
    inner_->row_dots(real(a), real(b), real(index), real(out));
  }

  void gather_columns(TensorView in, TensorView index, TensorView scale, TensorView out) override {
    inner_->gather_columns(real(in), real(index), real(scale), real(out));
  }
  void scatter_columns(TensorView in, TensorView index, TensorView scale, TensorView out) override {
    inner_->scatter_columns(real(in), real(index), real(scale), real(out));
  }
  void column_dots(TensorView a, TensorView b, TensorView out) override {
    inner_->column_dots(real(a), real(b), real(out));
  }

  void assign_balanced(TensorView scores, std::int64_t groups, TensorView token_of_slot,
                       TensorView rounds) override {
    inner_->assign_balanced(real(scores), groups, real(token_of_slot), real(rounds));
  }
  void assign_greedy(TensorView scores, TensorView token_of_slot,
                     std::span<std::int64_t> rows_of_expert) override {
    inner_->assign_greedy(real(scores), real(token_of_slot), rows_of_expert);
  }
  void sigmoid_of_slots(TensorView scores, TensorView token_of_slot,
                        std::span<const std::int64_t> rows_of_expert, TensorView alpha) override {
    inner_->sigmoid_of_slots(real(scores), real(token_of_slot), rows_of_expert, real(alpha));
  }
  void sigmoid_of_slots_backward(TensorView alpha, TensorView dalpha, TensorView token_of_slot,
                                 std::span<const std::int64_t> rows_of_expert, TensorView dscores) override {
    inner_->sigmoid_of_slots_backward(real(alpha), real(dalpha), real(token_of_slot), rows_of_expert,
                                      real(dscores));
  }
  void softmax_of_slots(TensorView scores, TensorView token_of_slot,
                        std::span<const std::int64_t> rows_of_expert, TensorView alpha) override {
    inner_->softmax_of_slots(real(scores), real(token_of_slot), rows_of_expert, real(alpha));
  }
  void softmax_of_slots_backward(TensorView scores, TensorView dalpha, TensorView token_of_slot,
                                 std::span<const std::int64_t> rows_of_expert, TensorView dscores) override {
    inner_->softmax_of_slots_backward(real(scores), real(dalpha), real(token_of_slot), rows_of_expert,
                                      real(dscores));
  }
  void look_up(TensorView table, TensorView index, TensorView out) override {
    inner_->look_up(real(table), real(index), real(out));
  }
  void choose_experts(const ChooseExperts& call) override {
    ChooseExperts c = call;
    make_real({&c.logits, &c.gates, &c.log_sum, &c.expert});
    inner_->choose_experts(c);
  }
  void balance_of_choices(const BalanceOfChoices& call) override {
    BalanceOfChoices b = call;
    make_real({&b.gates, &b.log_sum, &b.expert, &b.frequency, &b.add_to});
    inner_->balance_of_choices(b);
  }
  void place_tokens(const PlaceTokens& call) override {
    PlaceTokens p = call;
    make_real({&p.expert, &p.gates, &p.token_of_slot, &p.slot, &p.dropped, &p.taken});
    inner_->place_tokens(p);
  }
  void weigh_slots(const WeighSlots& call) override {
    WeighSlots w = call;
    make_real({&w.gates, &w.expert, &w.slot, &w.weight});
    inner_->weigh_slots(w);
  }
  void choices_backward(const ChoicesBackward& call) override {
    ChoicesBackward c = call;
    make_real({&c.gates, &c.expert, &c.slot, &c.dweight, &c.frequency, &c.log_sum, &c.auxiliary, &c.row_scale,
               &c.dlogits});
    inner_->choices_backward(c);
  }

  void cross_entropy(TensorView logits, TensorView targets, TensorView row_loss, TensorView scale,
                     bool gradient) override {
    inner_->cross_entropy(real(logits), real(targets), real(row_loss), real(scale), gradient);
  }
  void sum(TensorView x, TensorView add_to) override { inner_->sum(real(x), real(add_to)); }
  void sum_of_squares(TensorView x, TensorView add_to) override {
    inner_->sum_of_squares(real(x), real(add_to));
  }
  void adamw(const AdamWSettings& settings, TensorView value, TensorView master, TensorView grad,
             TensorView m, TensorView v, TensorView control) override {
    inner_->adamw(settings, real(value), real(master), real(grad), real(m), real(v), real(control));
  }

 private:
  static constexpr std::int64_t away = std::int64_t{1} << 57;

  static void* moved(void* address, std::int64_t by) noexcept {
    return address ? reinterpret_cast<void*>(reinterpret_cast<std::intptr_t>(address) + by) : nullptr;
  }
  static TensorView real(TensorView view) noexcept {
    view.data = moved(view.data, -away);
    return view;
  }
  static SpatialProduct real(const SpatialProduct& p) { return {real(p.weight), real(p.v), real(p.out)}; }
  static Attention real(const Attention& a) {
    return {real(a.query), real(a.key), real(a.value), real(a.out), real(a.log_sum), a.heads};
  }
  static Gating real(const Gating& g) { return {real(g.u), real(g.z), real(g.bias), real(g.out), g.activation}; }
  static Normalisation real(const Normalisation& n) {
    return {real(n.x), real(n.weight), real(n.bias), n.groups, real(n.mean), real(n.inverse_deviation), n.activation};
  }
  static Matmul real(Matmul m) {
    make_real({&m.a, &m.b, &m.out, &m.bias, &m.residual, &m.pre_activation, &m.bias_gradient});
    return m;
  }
  static void make_real(std::initializer_list<TensorView*> views) {
    for (TensorView* view : views) *view = real(*view);
  }

  std::unique_ptr<Backend> inner_ = make_cpu_backend();
};

}  // namespace smlp::test
