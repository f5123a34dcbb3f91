// The causal softmax between the two products of attention, where no fused attention is at hand.
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

namespace {

// One block a row.
template <class T>
__global__ void __launch_bounds__(block_threads) softmax_row(CausalSoftmax s) {
  for (std::int64_t r = blockIdx.x; r < s.heads * s.length; r += gridDim.x) {
    const std::int64_t seen = r % s.length + 1;
    const float* x = s.scores + r * s.length;
    T* out = static_cast<T*>(s.chances) + r * s.length;
    float most = -INFINITY, sum = 0;
    for (std::int64_t c = threadIdx.x; c < seen; c += block_threads) most = x[c] > most ? x[c] : most;
    most = across_block(most, Most{});
    for (std::int64_t c = threadIdx.x; c < seen; c += block_threads) sum += expf((x[c] - most) * s.scale);
    const float total = across_block(sum, Sum{});
    for (std::int64_t c = threadIdx.x; c < s.length; c += block_threads) {
      out[c] = narrow<T>(c < seen ? expf((x[c] - most) * s.scale) / total : 0);
    }
    if (threadIdx.x == 0) s.log_sum[r] = most * s.scale + logf(total);
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads) softmax_row_backward(CausalSoftmax s) {
  for (std::int64_t r = blockIdx.x; r < s.heads * s.length; r += gridDim.x) {
    const std::int64_t seen = r % s.length + 1;
    float* x = s.scores + r * s.length;
    const float* d = s.dchances + r * s.length;
    T *chances = static_cast<T*>(s.chances) + r * s.length,
      *dscores = static_cast<T*>(s.dscores) + r * s.length;
    const float log_sum = s.log_sum[r];
    float dot = 0;
    for (std::int64_t c = threadIdx.x; c < seen; c += block_threads) {
      x[c] = expf(x[c] * s.scale - log_sum);
      dot += x[c] * d[c];
    }
    dot = across_block(dot, Sum{});
    for (std::int64_t c = threadIdx.x; c < s.length; c += block_threads) {
      const float chance = c < seen ? x[c] : 0;
      chances[c] = narrow<T>(chance);
      dscores[c] = narrow<T>(c < seen ? chance * (d[c] - dot) * s.scale : 0);
    }
  }
}

}  // namespace

void causal_softmax(cudaStream_t stream, DType type, const CausalSoftmax& s) {
  with_type(type, [&](auto t) {
    launch(stream, grid(std::min(most_blocks, s.heads * s.length)), softmax_row<decltype(t)>, s);
  });
}

void causal_softmax_backward(cudaStream_t stream, DType type, const CausalSoftmax& s) {
  with_type(type, [&](auto t) {
    launch(stream, grid(std::min(most_blocks, s.heads * s.length)), softmax_row_backward<decltype(t)>, s);
  });
}

}  // namespace smlp::cuda
