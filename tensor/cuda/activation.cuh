// Activations and their slopes, of one number.
#pragma once

#include <type_traits>

#include "tensor/backend.h"
#include "tensor/cuda/numbers.cuh"

namespace smlp::cuda {

__device__ inline float sigmoid(float x) { return 1 / (1 + expf(-x)); }
__device__ inline float normal(float x) { return 0.5f * erfcf(-0.70710678f * x); }

constexpr float tanh_a = 1.5957691216f, tanh_b = tanh_a * 0.044715f;  // (1 + tanh u) / 2 = sigmoid(2u)

template <Activation kind>
__device__ inline float activated(float x) {
  if constexpr (kind == Activation::gelu_tanh) {
    const float square = x * x;
    return x * sigmoid(x * (tanh_a + tanh_b * square));
  } else if constexpr (kind == Activation::gelu) {
    return x * normal(x);
  } else if constexpr (kind == Activation::relu) {
    return x > 0 ? x : 0;
  } else {
    return x;
  }
}

template <Activation kind>
__device__ inline float slope(float x) {
  if constexpr (kind == Activation::gelu_tanh) {
    const float square = x * x, s = sigmoid(x * (tanh_a + tanh_b * square));
    return s + x * s * (1 - s) * (tanh_a + 3 * tanh_b * square);
  } else if constexpr (kind == Activation::gelu) {
    return normal(x) + x * 0.39894228f * expf(-0.5f * x * x);
  } else if constexpr (kind == Activation::relu) {
    return x > 0 ? 1 : 0;
  } else {
    return 1;
  }
}

// body(the kind as a constant), for a kind that is the same for all threads.
template <class Body>
__device__ inline float with_kind(Activation kind, Body body) {
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
__device__ inline float activated(Activation kind, float x) {
  return with_kind(kind, [x](auto k) { return activated<decltype(k)::value>(x); });
}
__device__ inline float slope(Activation kind, float x) {
  return with_kind(kind, [x](auto k) { return slope<decltype(k)::value>(x); });
}

}  // namespace smlp::cuda
