// Layer normalisation of the parts of rows. A part is read from the first-level cache after its first pass.
#include "tensor/cuda/column_sums.cuh"
#include "tensor/cuda/kernels.h"

namespace smlp::cuda {

namespace {

constexpr std::int64_t widest_for_a_warp = 1024;
constexpr float epsilon = 1e-5f;

template <int team, int n, class T>
__global__ void __launch_bounds__(block_threads) normalise(Norm norm, Matrix out) {
  const std::int64_t part = team_number<team>(), width = norm.x.width / norm.groups;
  if (part >= norm.x.rows * norm.groups) return;
  const std::int64_t r = part / norm.groups, first = (part - r * norm.groups) * width;
  const T* x = row<T>(norm.x, r) + first;
  const auto *weight = static_cast<const T*>(norm.weight), *bias = static_cast<const T*>(norm.bias);
  T* to = row<T>(out, r) + first;
  const std::int64_t begin = threadIdx.x % team * n;
  float sum = 0, squares = 0;
  for (std::int64_t c = begin; c < width; c += team * n) {
    float value[n];
    load(x + c, value);
#pragma unroll
    for (int i = 0; i < n; ++i) sum += value[i];
  }
  const float mean = across_team<team>(sum, Sum{}) / static_cast<float>(width);
  for (std::int64_t c = begin; c < width; c += team * n) {
    float value[n];
    load(x + c, value);
#pragma unroll
    for (int i = 0; i < n; ++i) squares += (value[i] - mean) * (value[i] - mean);
  }
  const float inverse = 1 / sqrtf(across_team<team>(squares, Sum{}) / static_cast<float>(width) + epsilon);
  if (threadIdx.x % team == 0) {
    norm.mean[part] = mean;
    norm.inverse_deviation[part] = inverse;
  }
  for (std::int64_t c = begin; c < width; c += team * n) {
    float value[n], factor[n], shift[n];
    load(x + c, value);
    if (weight) load(weight + first + c, factor);
    if (bias) load(bias + first + c, shift);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      value[i] = (value[i] - mean) * inverse;
      if (weight) value[i] *= factor[i];
      if (bias) value[i] += shift[i];
    }
    store(value, to + c);
  }
}

template <int team, int n, class T>
__global__ void __launch_bounds__(block_threads)
    normalise_backward(Norm norm, Matrix dy, Matrix residual, Matrix dx) {
  const std::int64_t part = team_number<team>(), width = norm.x.width / norm.groups;
  if (part >= norm.x.rows * norm.groups) return;
  const std::int64_t r = part / norm.groups, first = (part - r * norm.groups) * width;
  const T *x = row<T>(norm.x, r) + first, *d = row<T>(dy, r) + first;
  const T* weight = norm.weight ? static_cast<const T*>(norm.weight) + first : nullptr;
  const T* more = residual.data ? row<T>(residual, r) + first : nullptr;
  T* to = row<T>(dx, r) + first;
  const float mean = norm.mean[part], inverse = norm.inverse_deviation[part];
  const std::int64_t begin = threadIdx.x % team * n;
  // The normalised element and the gradient of it.
  const auto pair = [&](std::int64_t c, float(&normed)[n], float(&dnormed)[n]) {
    load(x + c, normed);
    load(d + c, dnormed);
    float factor[n];
    if (weight) load(weight + c, factor);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      normed[i] = (normed[i] - mean) * inverse;
      if (weight) dnormed[i] *= factor[i];
    }
  };
  float sum = 0, product = 0;
  for (std::int64_t c = begin; c < width; c += team * n) {
    float normed[n], dnormed[n];
    pair(c, normed, dnormed);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      sum += dnormed[i];
      product += dnormed[i] * normed[i];
    }
  }
  sum = across_team<team>(sum, Sum{}) / static_cast<float>(width);
  product = across_team<team>(product, Sum{}) / static_cast<float>(width);
  for (std::int64_t c = begin; c < width; c += team * n) {
    float normed[n], result[n], rest[n];
    pair(c, normed, result);
    if (more) load(more + c, rest);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      result[i] = (result[i] - sum - normed[i] * product) * inverse;
      if (more) result[i] += rest[i];
    }
    store(result, to + c);
  }
}

// Terms of dweight and dbias.
template <class T>
struct NormTerm {
  Norm norm;
  std::int64_t group_width;
  Matrix dy;
  template <int n>
  __device__ void add(std::int64_t r, std::int64_t c, float (&sums)[2][n]) const {
    const std::int64_t part = r * norm.groups + c / group_width;
    const float mean = norm.mean[part], inverse = norm.inverse_deviation[part];
    float x[n], d[n];
    load(row<T>(norm.x, r) + c, x);
    load(row<T>(dy, r) + c, d);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      sums[0][i] += d[i] * ((x[i] - mean) * inverse);
      sums[1][i] += d[i];
    }
  }
};

template <class T>
bool packed(const Norm& norm, std::initializer_list<Matrix> others) {
  constexpr int n = pack_of<T>;
  const std::int64_t width = norm.x.width / norm.groups;
  bool yes = width % n == 0 && in_packs(norm.x, sizeof(T), n);
  for (const void* vector : {norm.weight, norm.bias})
    yes = yes && in_packs({const_cast<void*>(vector), 1, width, 0}, sizeof(T), n);
  for (const Matrix& m : others) yes = yes && in_packs(m, sizeof(T), n);
  return yes;
}

// start(kernel's team, number of blocks) for the kernels above.
template <class Warp, class Block, class... Arguments>
void start(cudaStream_t stream, const Norm& norm, Warp for_warps, Block for_blocks,
           const Arguments&... arguments) {
  const std::int64_t parts = norm.x.rows * norm.groups;
  if (norm.x.width / norm.groups <= widest_for_a_warp) {
    constexpr int warps = block_threads / 32;
    launch(stream, grid((parts + warps - 1) / warps), for_warps, norm, arguments...);
  } else {
    launch(stream, grid(parts), for_blocks, norm, arguments...);
  }
}

}  // namespace

void layer_norm(cudaStream_t stream, DType type, const Norm& norm, const Matrix& out) {
  if (norm.x.rows * norm.x.width == 0) return;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    constexpr int n = pack_of<T>;
    if (packed<T>(norm, {out})) {
      start(stream, norm, normalise<32, n, T>, normalise<block_threads, n, T>, out);
    } else {
      start(stream, norm, normalise<32, 1, T>, normalise<block_threads, 1, T>, out);
    }
  });
}

void layer_norm_backward(cudaStream_t stream, DType type, const Norm& norm, const NormBackward& b) {
  const std::int64_t rows = norm.x.rows, width = norm.x.width;
  if (rows * width == 0) return;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    constexpr int n = pack_of<T>;
    const bool in_n = packed<T>(norm, {b.dy, b.residual, b.dx});
    if (b.scratch) {  // before dx, which may take the place of dy
      const std::int64_t runs = column_runs(rows, width), run = (rows + runs - 1) / runs;
      const NormTerm<T> term{norm, width / norm.groups, b.dy};
      if (in_n) {
        start_partials<2, n>(stream, rows, width, runs, run, b.scratch, term);
      } else {
        start_partials<2, 1>(stream, rows, width, runs, run, b.scratch, term);
      }
      if (b.dweight) start_totals(stream, b.scratch, runs, width, b.dweight);
      if (b.dbias) start_totals(stream, b.scratch + runs * width, runs, width, b.dbias);
    }
    if (in_n) {
      start(stream, norm, normalise_backward<32, n, T>, normalise_backward<block_threads, n, T>, b.dy,
            b.residual, b.dx);
    } else {
      start(stream, norm, normalise_backward<32, 1, T>, normalise_backward<block_threads, 1, T>, b.dy,
            b.residual, b.dx);
    }
  });
}

}  // namespace smlp::cuda
