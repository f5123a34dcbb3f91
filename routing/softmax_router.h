// Switch (one choice) and GShard (two): gates are the softmax of a linear map of x, or the sigmoid of each logit, the best
// experts get a token, and an answer counts its gate. Capacities are counted within routing groups; what finds no place is dropped.
// Formulas: tensor/expert_choice.h, routing/auxiliary_loss.h, routing/capacity.h. At evaluation nothing is drawn:
// the best experts by their logits, as `evaluation_second` says, and places by position for a random order.
#pragma once

#include <string>

#include "routing/auxiliary_loss.h"
#include "routing/capacity.h"
#include "routing/linear_scores.h"

namespace smlp {

struct SoftmaxSettings {
  std::int64_t choices = 1;
  Capacity training{}, evaluation{.factor = 0};
  GateKind gate = GateKind::softmax;
  FirstChoice first = FirstChoice::best;
  SecondChoice second = SecondChoice::sampling, evaluation_second = SecondChoice::all;
  double second_threshold = 0.5;
  Normalise normalise = Normalise::after_dropping;  // of two choices
  // Above 0: after each step an expert that got fewer tokens than the mean ranks so much higher, one that got more so
  // much lower (Megatron's expert bias). Counted in a table of the store.
  double bias_rate = 0;
  PlaceOrder order = PlaceOrder::position;
  double jitter = 0;  // the gate sees x · U(1 - jitter, 1 + jitter) in training
  AuxiliaryLoss auxiliary{};
  std::int64_t layers = 1;  // routers whose auxiliary losses add up
};

class SoftmaxRouter final : public Router {
 public:
  SoftmaxRouter(ParameterStore& store, const std::string& name, std::int64_t experts, std::int64_t width,
                const SoftmaxSettings& settings);

  void decide(RouteCall& call, TensorView x, RoutePlan& plan) override;
  void backward(RouteCall& call, const RoutePlan& plan, TensorView dweight, TensorView residual,
                TensorView dx) override;
  Table* bias() override { return bias_; }
  std::optional<std::int64_t> slots_of_group(bool training, std::int64_t tokens) const override;

 private:
  void choose(RouteCall& call, TensorView x, RoutePlan& plan);
  void place(RouteCall& call, RoutePlan& plan);
  void weigh(RouteCall& call, RoutePlan& plan, DType type);
  Normalise normalise() const noexcept;
  double layer_share() const noexcept;  // of this layer in the balance loss

  std::string jitter_, choice_, order_;  // names of streams of random numbers
  std::int64_t experts_;
  SoftmaxSettings settings_;
  LinearScores scores_;
  Table* bias_ = nullptr;  // of the store; none without bias_rate
  TensorView logits_, gates_, log_sum_, expert_, slot_, frequency_;  // of the last plan
};

}  // namespace smlp
