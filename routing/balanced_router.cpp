#include "routing/balanced_router.h"

#include <algorithm>

#include "core/error.h"

namespace smlp {

BalancedRouter::BalancedRouter(ParameterStore& store, const std::string& name, std::int64_t experts,
                               std::int64_t width)
    : experts_(experts), centroids_(store, name, experts, width, Initial::orthonormal_rows(0.1)) {}

std::optional<std::int64_t> BalancedRouter::slots_of_group(bool training, std::int64_t tokens) const {
  if (!training) return std::nullopt;
  return (tokens + experts_ - 1) / experts_;
}

void BalancedRouter::decide(RouteCall& call, TensorView x, RoutePlan& plan) {
  const std::int64_t rows = x.rows();
  const DType wide = wide_type(x.dtype);
  plan.begin(experts_);
  plan.repeats = Repeats::none;
  if (rows == 0) {
    plan.token_of_slot = call.scratch.take({0}, DType::i32);
    plan.weight = call.scratch.take({0}, x.dtype);
    return;
  }
  std::int64_t slots = rows;
  const std::int64_t groups = call.groups(rows);
  if (call.training) {
    expect(groups > 0 && rows % call.group_rows == 0, "routing: the rows are no whole number of equal groups");
    const std::int64_t capacity = *slots_of_group(true, call.group_rows);
    std::fill(plan.rows_of_expert.begin(), plan.rows_of_expert.end(), groups * capacity);
    slots = experts_ * groups * capacity;
  }
  plan.token_of_slot = call.scratch.take({slots}, DType::i32);
  plan.weight = call.scratch.take({slots}, x.dtype);
  alpha_ = wide == x.dtype ? plan.weight : call.scratch.take({slots}, wide);
  if (call.training) plan.rounds = call.rounds ? call.rounds : call.scratch.take({groups}, DType::i32);
  plan.no_empty_slot = slots == rows;

  const Arena::Frame frame(call.scratch);
  const TensorView scores = call.scratch.take({rows, experts_}, wide);
  centroids_.forward(call, x, scores);
  if (call.training) {
    const Shape by_group{experts_, groups, slots / experts_ / groups};
    call.backend.assign_balanced(scores, groups, plan.token_of_slot.reshaped(by_group), plan.rounds);
  } else {
    call.backend.assign_greedy(scores, plan.token_of_slot, plan.rows_of_expert);
  }
  call.backend.sigmoid_of_slots(scores, plan.token_of_slot, plan.rows_of_expert, alpha_);
  if (wide != x.dtype) call.backend.copy(alpha_, plan.weight);
}

void BalancedRouter::backward(RouteCall& call, const RoutePlan& plan, TensorView dweight, TensorView residual,
                              TensorView dx) {
  if (dx.rows() == 0) return;
  const Arena::Frame frame(call.scratch);
  const TensorView dscores = call.scratch.take({dx.rows(), experts_}, alpha_.dtype);
  call.backend.fill(dscores, 0);
  call.backend.sigmoid_of_slots_backward(alpha_, dweight, plan.token_of_slot, plan.rows_of_expert, dscores);
  centroids_.backward(call, dscores, residual, dx);
}

}  // namespace smlp
