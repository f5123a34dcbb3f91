// Scores of every token for every expert: x · weightᵀ, weight [experts, width]. Scores and their gradients are f32
// (f64 for f64), whatever the type of x; products with gradients take those in x's. Owned by the router that decides by them.
#pragma once

#include <string>

#include "routing/router.h"

namespace smlp {

class LinearScores {
 public:
  LinearScores(ParameterStore& store, const std::string& name, std::int64_t experts, std::int64_t width,
               Initial initial)
      : weight_(store.add({.name = name, .shape = {experts, width}, .initial = initial})) {}

  // scores: [rows, experts] of the wide type. Keeps x for backward().
  void forward(RouteCall& call, TensorView x, TensorView scores);
  // dx = residual + dscores · weight; the weight's gradient adds up.
  void backward(RouteCall& call, TensorView dscores, TensorView residual, TensorView dx);

 private:
  Parameter& weight_;
  TensorView x_;
};

}  // namespace smlp
