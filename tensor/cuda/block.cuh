// Sums over the threads of a warp or of a block, in a fixed order, so that the same call gives the same bits.
#pragma once

#include "tensor/cuda/numbers.cuh"

#ifdef __CUDACC__
#define SMLP_SHARED(type, name, count) __shared__ type name[count]
#endif  // else tests/cuda_emulation

namespace smlp::cuda {

constexpr int block_threads = 256;
constexpr unsigned all_lanes = 0xFFFFFFFFu;

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Most {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// Two sums at once.
struct Pair {
  float first, second;
  __device__ friend Pair operator+(Pair a, Pair b) { return {a.first + b.first, a.second + b.second}; }
};

template <class T>
__device__ inline T from_lane(T value, int with) {
  return __shfl_xor_sync(all_lanes, value, with);
}
__device__ inline Pair from_lane(Pair value, int with) {
  return {from_lane(value.first, with), from_lane(value.second, with)};
}

// The `lanes` lanes that a lane is among; all of its warp take part.
template <int lanes = 32, class T, class Combine>
__device__ inline T across_warp(T value, Combine combine) {
#pragma unroll
  for (int with = lanes / 2; with > 0; with /= 2) value = combine(value, from_lane(value, with));
  return value;
}

// The `team` threads that a thread is among: some warps, or the block. All threads of the block take part; every one gets
// the result of its team.
template <int team = block_threads, class T, class Combine>
__device__ inline T across_block(T value, Combine combine) {
  SMLP_SHARED(T, of_warp, block_threads / 32);
  value = across_warp(value, combine);
  __syncthreads();  // what an earlier call left has been read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  const int first = team == block_threads ? 0 : static_cast<int>(threadIdx.x) / team * (team / 32);
  value = of_warp[first];
#pragma unroll
  for (int w = 1; w < team / 32; ++w) value = combine(value, of_warp[first + w]);
  return value;
}

// A team is a part of a warp, a warp, or the whole block: what works on one row.
template <int team, class T, class Combine>
__device__ inline T across_team(T value, Combine combine) {
  if constexpr (team <= 32) {
    return across_warp<team>(value, combine);
  } else {
    return across_block<team>(value, combine);
  }
}
template <int team>
__device__ inline std::int64_t team_number() {
  return static_cast<std::int64_t>(blockIdx.x) * (block_threads / team) + threadIdx.x / team;
}

// Exclusive sum over the threads of a block; `total` receives that of all.
__device__ inline int sum_before(int value, int* total) {
  SMLP_SHARED(int, of_warp, block_threads / 32);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int sum = value;
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const int before = __shfl_up_sync(all_lanes, sum, static_cast<unsigned>(by));
    if (lane >= by) sum += before;
  }
  __syncthreads();
  if (lane == 31) of_warp[warp] = sum;
  __syncthreads();
  int all = 0;
  for (int w = 0; w < block_threads / 32; ++w) {
    if (w < warp) sum += of_warp[w];
    all += of_warp[w];
  }
  *total = all;
  return sum - value;
}

}  // namespace smlp::cuda
