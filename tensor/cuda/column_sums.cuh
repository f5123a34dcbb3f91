// Sums down the columns of a matrix that is never written: partial sums of runs of rows, then the sum of
// those in order.
#pragma once

#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

constexpr int lines = block_threads / 32;  // rows that a block looks at together

// As many runs as keep a large card busy, none shorter than 64 rows: a function of the shape alone.
inline std::int64_t column_runs(std::int64_t rows, std::int64_t width) {
  return std::max<std::int64_t>(1, std::min((rows + 63) / 64, 131072 / std::max<std::int64_t>(width, 1)));
}

// term.add<n>(r, c, sums) adds the terms of elements (r, c) ... (r, c + n - 1). partial [outputs, runs,
// width].
template <int outputs, int n, class Term>
__global__ void __launch_bounds__(block_threads)
    column_partials(std::int64_t rows, std::int64_t width, std::int64_t run, float* partial, Term term) {
  constexpr int tile = 32 * n;
  SMLP_SHARED(float, of_line, outputs* lines* tile);
  const int line = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t first = blockIdx.y * run, end = first + run < rows ? first + run : rows;
  const std::int64_t tile_first = static_cast<std::int64_t>(blockIdx.x) * tile, c = tile_first + lane * n;
  float sums[outputs][n] = {};
  if (c < width) {
    for (std::int64_t r = first + line; r < end; r += lines) term.template add<n>(r, c, sums);
  }
#pragma unroll
  for (int o = 0; o < outputs; ++o) {
#pragma unroll
    for (int i = 0; i < n; ++i) of_line[(o * lines + line) * tile + lane * n + i] = sums[o][i];
  }
  __syncthreads();
  for (int j = static_cast<int>(threadIdx.x); j < outputs * tile; j += block_threads) {
    const int o = j / tile, k = j % tile;
    if (tile_first + k >= width) continue;
    float sum = 0;
#pragma unroll
    for (int l = 0; l < lines; ++l) sum += of_line[(o * lines + l) * tile + k];
    partial[(o * static_cast<std::int64_t>(gridDim.y) + blockIdx.y) * width + tile_first + k] = sum;
  }
}

// add_to[c] += the sum over the runs.
template <class T>
__global__ void __launch_bounds__(block_threads)
    column_totals(const float* partial, std::int64_t runs, std::int64_t width, T* add_to) {
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (c >= width) return;
  float sum = 0;
  for (std::int64_t k = 0; k < runs; ++k) sum += partial[k * width + c];
  add_to[c] = narrow<T>(widen(add_to[c]) + sum);
}

template <int outputs, int n, class Term>
void start_partials(cudaStream_t stream, std::int64_t rows, std::int64_t width, std::int64_t runs,
                    std::int64_t run, float* partial, const Term& term) {
  launch(stream, grid((width + 32 * n - 1) / (32 * n), runs), column_partials<outputs, n, Term>, rows, width,
         run, partial, term);
}

template <class T>
void start_totals(cudaStream_t stream, const float* partial, std::int64_t runs, std::int64_t width,
                  T* add_to) {
  launch(stream, grid((width + block_threads - 1) / block_threads), column_totals<T>, partial, runs, width,
         add_to);
}

}  // namespace smlp::cuda
