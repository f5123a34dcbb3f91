#include "routing/balanced_router.h"

#include <algorithm>

#include "core/error.h"

namespace smlp {

BalancedRouter::BalancedRouter(ParameterStore& store, const std::string& name, std::int64_t experts,
                               std::int64_t width)
    : experts_(experts),
      centroids_(
          store.add({.name = name, .shape = {experts, width}, .initial = Initial::orthonormal_rows(0.1)})) {}

std::optional<std::int64_t> BalancedRouter::slots_of_group(bool training, std::int64_t tokens) const {
  if (!training) return std::nullopt;
  return (tokens + experts_ - 1) / experts_;
}

RoutePlan BalancedRouter::plan(RouteCall& call, TensorView x) {
  x_ = x;
  const std::int64_t rows = x.rows();
  const DType wide = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  RoutePlan plan;
  plan.rows_of_expert.assign(static_cast<std::size_t>(experts_), 0);
  if (rows == 0) {
    plan.token_of_slot = call.scratch.take({0}, DType::i32);
    plan.weight = call.scratch.take({0}, x.dtype);
    return plan;
  }
  std::int64_t slots = rows;
  if (call.training) {
    expect(call.groups > 0 && rows % call.groups == 0,
           "routing: the rows are no whole number of equal groups");
    const std::int64_t capacity = *slots_of_group(true, rows / call.groups);
    std::fill(plan.rows_of_expert.begin(), plan.rows_of_expert.end(), call.groups * capacity);
    slots = experts_ * call.groups * capacity;
  }
  plan.token_of_slot = call.scratch.take({slots}, DType::i32);
  plan.weight = call.scratch.take({slots}, x.dtype);
  alpha_ = wide == x.dtype ? plan.weight : call.scratch.take({slots}, wide);
  if (call.training) plan.rounds = call.scratch.take({call.groups}, DType::i32);
  plan.every_slot_used = slots == rows;

  const Arena::Frame frame(call.scratch);
  const TensorView scores = call.scratch.take({rows, experts_}, wide);
  call.backend.matmul({.a = x, .b = centroids_.value, .out = scores, .transpose_b = true});
  if (call.training) {
    const Shape by_group{experts_, call.groups, slots / experts_ / call.groups};
    call.backend.assign_balanced(scores, call.groups, plan.token_of_slot.reshaped(by_group), plan.rounds);
  } else {
    call.backend.assign_greedy(scores, plan.token_of_slot, plan.rows_of_expert);
  }
  call.backend.sigmoid_of_slots(scores, plan.token_of_slot, plan.rows_of_expert, alpha_);
  if (wide != x.dtype) call.backend.copy(alpha_, plan.weight);
  return plan;
}

void BalancedRouter::backward(RouteCall& call, const RoutePlan& plan, TensorView dweight, TensorView residual,
                              TensorView dx) {
  if (dx.rows() == 0) return;
  const Arena::Frame frame(call.scratch);
  const auto converted = [&](const TensorView& view, DType type) {
    if (view.dtype == type) return view;
    const TensorView other = call.scratch.take(view.shape, type);
    call.backend.copy(view, other);
    return other;
  };
  const TensorView wide_dscores = call.scratch.take({dx.rows(), experts_}, alpha_.dtype);
  call.backend.fill(wide_dscores, 0);
  call.backend.sigmoid_of_slots_backward(alpha_, converted(dweight, alpha_.dtype), plan.token_of_slot,
                                         plan.rows_of_expert, wide_dscores);
  const TensorView dscores = converted(wide_dscores, dx.dtype);
  call.backend.matmul(
      {.a = dscores, .b = x_, .out = centroids_.grad, .transpose_a = true, .accumulate = true});
  call.backend.matmul({.a = dscores, .b = centroids_.value, .out = dx, .residual = residual});
}

}  // namespace smlp
