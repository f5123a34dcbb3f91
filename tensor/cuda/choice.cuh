// What a token's choices count, on the device (tensor/expert_choice.h), in f64 whatever the type of the
// gates.
#pragma once

#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/routing_kernels.h"

namespace smlp::cuda {

inline Numbers numbers(const TensorView& view) { return {view.data, view.dtype}; }

__device__ inline double uniform(const ChoiceNoise& noise, std::uint64_t element, std::uint64_t kind) {
  const Words words = philox_words(noise.key, element, kind);
  return (static_cast<double>((std::uint64_t{words.word[1]} << 32 | words.word[0]) >> 11) + 0.5) * 0x1p-53;
}

__device__ inline std::int64_t chosen(std::int32_t expert) { return expert < 0 ? ~expert : expert; }

// Up to two choices of a token.
struct TokenGates {
  double value[2] = {}, sum = 1;  // sum: what they are divided by
  bool kept[2] = {}, in_sum[2] = {};
  bool fixed = true;  // the sum is no function of the gates

  // gate(j), slot(j): of choice j.
  template <class Gate, class Slot>
  __device__ TokenGates(int choices, Normalise normalise, double least, Gate gate, Slot slot) {
    double all = 0;
    for (int j = 0; j < choices; ++j) {
      value[j] = gate(j);
      kept[j] = slot(j) >= 0;
      in_sum[j] =
          normalise == Normalise::before_dropping || (normalise == Normalise::after_dropping && kept[j]);
      if (in_sum[j]) all += value[j];
    }
    if (normalise == Normalise::never) return;
    fixed = !(all > least);
    sum = fixed ? least : all;
  }
};

inline double epsilon_of(DType type) { return type == DType::f64 ? 0x1p-52 : 0x1p-23; }

}  // namespace smlp::cuda
