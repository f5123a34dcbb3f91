// Scores of every token for every expert: x · weightᵀ, weight [experts, width]. Scores and their gradients are f32
// (f64 for f64), whatever the type of x. Owned by the router that decides by them.
#pragma once

#include <string>

#include "routing/router.h"

namespace smlp {

class LinearScores {
 public:
  LinearScores(ParameterStore& store, const std::string& name, std::int64_t experts, std::int64_t width,
               Initial initial)
      : weight_(store.add({.name = name, .shape = {experts, width}, .initial = initial})) {}

  static DType type_for(const TensorView& x) noexcept { return x.dtype == DType::f64 ? DType::f64 : DType::f32; }

  // scores: [rows, experts] of type_for(x). Keeps x for backward().
  void forward(RouteCall& call, TensorView x, TensorView scores);
  // dx = residual + dscores · weight; the weight's gradient adds up.
  void backward(RouteCall& call, TensorView dscores, TensorView residual, TensorView dx);

 private:
  Parameter& weight_;
  TensorView x_;
};

// The view itself, or a copy of it in `type` that lives in the scratch memory.
TensorView converted(RouteCall& call, const TensorView& view, DType type);

}  // namespace smlp
