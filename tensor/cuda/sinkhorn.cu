// Equal shares of experts, as tensor/sinkhorn.cpp makes them: one block for each group of tokens, all rounds
// in one call.
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/routing_kernels.h"
#include "tensor/sinkhorn.h"

namespace smlp::cuda {

namespace {

constexpr int lines = block_threads / 32;
constexpr double least_sum = 1e-8;  // added to every sum before it divides

__global__ void __launch_bounds__(block_threads) scale_group(Shares s, double tolerance, int limit) {
  SMLP_SHARED(double, of_line, lines * 32);
  const std::int64_t group = blockIdx.x, line = threadIdx.x / 32, lane = threadIdx.x % 32;
  double* share = s.shares + group * s.tokens * s.experts;
  double* row_factor = s.factors + group * (s.tokens + s.experts);
  double* column_factor = row_factor + s.tokens;
  const double of_token = 1 / static_cast<double>(s.tokens), of_expert = 1 / static_cast<double>(s.experts);
  for (std::int64_t t = line; t < s.tokens; t += lines) {
    const auto logit = [&](std::int64_t e) {
      return number_at(s.logits, (group * s.tokens + t) * s.stride + e);
    };
    double most = -INFINITY;
    for (std::int64_t e = lane; e < s.experts; e += 32) {
      if (isfinite(logit(e))) most = Most{}(logit(e), most);
    }
    most = across_warp(most, Most{});
    for (std::int64_t e = lane; e < s.experts; e += 32) {
      share[t * s.experts + e] = isfinite(logit(e)) ? exp(logit(e) - most) : 0;
    }
  }
  for (std::int64_t e = threadIdx.x; e < s.experts; e += block_threads) column_factor[e] = 1;
  double moved = INFINITY;
  int round = 0;
  for (; moved > tolerance && round < limit; ++round) {
    __syncthreads();  // the factors of columns stand
    for (std::int64_t t = line; t < s.tokens; t += lines) {
      double sum = 0;
      for (std::int64_t e = lane; e < s.experts; e += 32) sum += share[t * s.experts + e] * column_factor[e];
      sum = across_warp(sum, Sum{});
      if (lane == 0) row_factor[t] = of_token / (sum + least_sum);
    }
    double mine = 0;
    for (std::int64_t base = 0; base < s.experts; base += 32) {
      __syncthreads();  // the factors of rows stand, and what was left here has been read
      const std::int64_t e = base + lane;
      double sum = 0;
      for (std::int64_t t = line; e < s.experts && t < s.tokens; t += lines)
        sum += row_factor[t] * share[t * s.experts + e];
      of_line[line * 32 + lane] = sum;
      __syncthreads();
      if (line > 0 || e >= s.experts) continue;
      for (int l = 1; l < lines; ++l) sum += of_line[l * 32 + lane];
      const double factor = of_expert / (sum + least_sum);
      mine += fabs(factor - column_factor[e]) * of_expert;
      column_factor[e] = factor;
    }
    moved = across_block(mine, Sum{});
  }
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < s.tokens * s.experts; i += block_threads) {
    share[i] *= column_factor[i % s.experts] * row_factor[i / s.experts];
  }
  if (threadIdx.x == 0) s.rounds[group] = moved > tolerance ? -round : round;
}

}  // namespace

void share_out(cudaStream_t stream, const Shares& s) {
  launch(stream, grid(s.groups), scale_group, s, Sinkhorn::tolerance, Sinkhorn::round_limit);
}

}  // namespace smlp::cuda
