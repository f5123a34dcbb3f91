// Sums down the columns of a matrix that is never written: partial sums of runs of rows, then the sum of
// those in order.
#pragma once

#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

constexpr int lines = block_threads / 32;  // rows that a block looks at together

// Equal parts of the rows are summed apart, each in runs of adjacent rows.
struct ColumnRuns {
  std::int64_t rows, width, parts;  // rows of a part
  std::int64_t runs, run;           // runs of a part; rows of a run, the last may have fewer
};
// As many runs as keep a large card busy, none shorter than 64 rows: a function of the shape alone. A grid has no more lines.
inline ColumnRuns column_runs(std::int64_t rows, std::int64_t width, std::int64_t parts = 1) {
  const std::int64_t busy = std::min<std::int64_t>(131072 / std::max<std::int64_t>(width * parts, 1), 65535);
  const std::int64_t runs = std::max<std::int64_t>(1, std::min((rows + 63) / 64, busy));
  return {rows, width, parts, runs, (rows + runs - 1) / runs};
}

// term.of(part, c) knows what all rows of a part share, so that its add<n>(r, sums), which adds the terms of elements (r, c)
// ... (r, c + n - 1), only loads: four rows are asked for together. partial [outputs, parts, runs, width].
template <int outputs, int n, class Term>
__global__ void __launch_bounds__(block_threads, 4) column_partials(ColumnRuns all, float* partial, Term term) {
  constexpr int tile = 32 * n;
  SMLP_SHARED(float, of_line, outputs* lines* tile);
  const int line = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t part = blockIdx.y / all.runs, width = all.width, part_end = (part + 1) * all.rows;
  const std::int64_t first = part * all.rows + (blockIdx.y - part * all.runs) * all.run;
  const std::int64_t end = first + all.run < part_end ? first + all.run : part_end;
  const std::int64_t tile_first = static_cast<std::int64_t>(blockIdx.x) * tile, c = tile_first + lane * n;
  float sums[outputs][n] = {};
  if (c < width) {
    const auto mine = term.of(part, c);
#pragma unroll 4
    for (std::int64_t r = first + line; r < end; r += lines) mine.template add<n>(r, sums);
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

// add_to[part * apart + c] += the sum over the runs of a part: each line adds up some of them, then the lines in order.
template <class T>
__global__ void __launch_bounds__(block_threads)
    column_totals(ColumnRuns all, const float* partial, T* add_to, std::int64_t apart) {
  SMLP_SHARED(float, of_line, block_threads);
  const int line = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t part = blockIdx.y, c = static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x % 32;
  float sum = 0;
  for (std::int64_t k = line; k < all.runs && c < all.width; k += lines) {
    sum += partial[(part * all.runs + k) * all.width + c];
  }
  of_line[threadIdx.x] = sum;
  __syncthreads();
  if (line > 0 || c >= all.width) return;
#pragma unroll
  for (int l = 1; l < lines; ++l) sum += of_line[l * 32 + threadIdx.x];
  T* to = add_to + part * apart + c;
  *to = narrow<T>(widen(*to) + sum);
}

// `packed`: can n adjacent elements be had at once?
template <int outputs, int n, class Term>
void start_partials(cudaStream_t stream, const ColumnRuns& all, bool packed, float* partial, const Term& term) {
  const std::int64_t tile = 32 * (packed ? n : 1);
  launch(stream, grid((all.width + tile - 1) / tile, all.parts * all.runs),
         packed ? column_partials<outputs, n, Term> : column_partials<outputs, 1, Term>, all, partial, term);
}

template <class T>
void start_totals(cudaStream_t stream, const ColumnRuns& all, const float* partial, T* add_to, std::int64_t apart = 0) {
  launch(stream, grid((all.width + 31) / 32, all.parts), column_totals<T>, all, partial, add_to, apart);
}

}  // namespace smlp::cuda
