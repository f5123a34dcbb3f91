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

// body.at<n>(r, c) for the channels c ... c + n - 1 of row r of all sequences, where n can be had at once: `packed`.
template <int n, class Body>
void for_channels(cudaStream_t stream, const Sequences& s, bool packed, const Body& body) {
  const std::int64_t rows = s.sequences * s.length, size = rows * s.channels;
  if (size == 0) return;
  launch(stream, grid(blocks_for(packed ? size / n : size, block_threads)), packed ? elements<n, Body> : elements<1, Body>,
         rows, s.channels, body);
}

}  // namespace smlp::cuda
