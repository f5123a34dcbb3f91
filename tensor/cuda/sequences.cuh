// Rows of sequences [B, T, C].
#pragma once

#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

template <class T>
__device__ inline T* row(const Sequences& s, std::int64_t b, std::int64_t t) {
  return static_cast<T*>(s.data) + b * s.sequence_stride + t * s.row_stride;
}

inline bool in_packs(const Sequences& s, std::int64_t size, std::int64_t n) {
  return reinterpret_cast<std::uintptr_t>(s.data) % static_cast<std::uintptr_t>(size * n) == 0 &&
         s.channels % n == 0 && s.sequence_stride % n == 0 && s.row_stride % n == 0;
}

}  // namespace smlp::cuda
