// Activations and their slopes, of one number. A kernel that moves four bytes an element has time for some thirty
// instructions: no division, and no branch (docs/decisions/0017).
#pragma once

#include <type_traits>

#include "tensor/cuda/launch.cuh"
#include "tensor/operands.h"

namespace smlp::cuda {

// Of an activation at x: its value and its slope.
struct Point {
  float value, slope;
};

template <Activation kind>
__device__ inline Point activated(float x) {
  if constexpr (kind == Activation::gelu_tanh) {
    // (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), by powers of 2
    constexpr float a = 1.5957691216f, b = a * 0.044715f;
    const float square = x * x;
    const float s = near_inverse(1 + near_exp2(x * (-log2_e * a - log2_e * b * square)));
    const float value = x * s;
    return {value, s + (value - value * s) * (a + 3 * b * square)};
  } else if constexpr (kind == Activation::gelu) {
    const float normal = 0.5f * erfcf(-0.70710678f * x);
    return {x * normal, normal + x * 0.39894228f * expf(-0.5f * x * x)};
  } else if constexpr (kind == Activation::relu) {
    return x > 0 ? Point{x, 1} : Point{0, 0};
  } else {
    return {x, 1};
  }
}

// body(the kind as a constant), for a kernel of that kind: one that asked for each element would have no time for it.
template <class Body>
void with_kind(Activation kind, Body body) {
  switch (kind) {
    case Activation::gelu_tanh:
      return body(std::integral_constant<Activation, Activation::gelu_tanh>{});
    case Activation::gelu:
      return body(std::integral_constant<Activation, Activation::gelu>{});
    case Activation::relu:
      return body(std::integral_constant<Activation, Activation::relu>{});
    default:
      return body(std::integral_constant<Activation, Activation::none>{});
  }
}

// body(a value of the type, the kind)
template <class Body>
void with_type_and_kind(DType type, Activation kind, Body body) {
  with_type(type, [&](auto t) { with_kind(kind, [&](auto k) { body(t, k); }); });
}

}  // namespace smlp::cuda
