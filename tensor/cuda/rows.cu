// Rows by index. Adding to rows that the index may repeat is done in the order of the call: a stable sort brings together
// what shares a place.
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

namespace {

// Negative: no row, as the caller meant it. Beyond the last: a fault.
__device__ bool is_row(std::int64_t at, std::int64_t rows, int* fault) {
  if (at >= rows) *fault = static_cast<int>(FaultKind::index);
  return at >= 0 && at < rows;
}

template <class T>
__device__ float factor_of(const Indexed& a, std::int64_t s) {
  return a.row_scale ? a.scale * widen(static_cast<const T*>(a.row_scale)[s]) : a.scale;
}

template <class T>
struct Gather {
  Indexed a;
  int* fault;
  template <int n>
  __device__ void at(std::int64_t s, std::int64_t c) const {
    const std::int64_t from = a.index[s];
    float x[n] = {};
    if (is_row(from, a.in.rows, fault)) {
      load(row<T>(a.in, from) + c, x);
      const float factor = factor_of<T>(a, s);
#pragma unroll
      for (int i = 0; i < n; ++i) x[i] *= factor;
    }
    store(x, row<T>(a.out, s) + c);
  }
};

template <int n, class T>
__global__ void __launch_bounds__(block_threads)
    dots(Matrix a, Matrix b, const std::int32_t* index, float* out, int* fault) {
  const std::int64_t s = team_number<32>();
  if (s >= a.rows) return;
  const std::int64_t other = index[s];
  float sum = 0;
  if (is_row(other, b.rows, fault)) {
    const T *x = row<T>(a, s), *y = row<T>(b, other);
    for (std::int64_t c = threadIdx.x % 32 * n; c < a.width; c += 32 * n) {
      float p[n], q[n];
      load(x + c, p);
      load(y + c, q);
#pragma unroll
      for (int i = 0; i < n; ++i) sum += p[i] * q[i];
    }
  }
  sum = across_warp(sum, Sum{});
  if (threadIdx.x % 32 == 0) out[s] = sum;
}

__global__ void __launch_bounds__(block_threads)
    number_rows(const std::int32_t* index, std::int64_t count, std::int64_t limit, std::uint32_t* key,
                std::int32_t* value, int* fault) {
  const std::int64_t s = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (s >= count) return;
  const std::int32_t at = index[s];
  key[s] = static_cast<std::uint32_t>(is_row(at, limit, fault) ? at : limit);  // nowhere: behind all others
  value[s] = static_cast<std::int32_t>(s);
}

// Of an index that names no row twice.
template <class T, class To>
struct AddRow {
  Indexed a;
  int* fault;
  template <int n>
  __device__ void at(std::int64_t s, std::int64_t c) const {
    const std::int64_t place = a.index[s];
    if (!is_row(place, a.out.rows, fault)) return;
    To* to = row<To>(a.out, place) + c;
    float x[n], sum[n];
    load(row<T>(a.in, s) + c, x);
    load(to, sum);
    const float factor = factor_of<T>(a, s);
#pragma unroll
    for (int i = 0; i < n; ++i) sum[i] += factor * x[i];
    store(sum, to);
  }
};

// The warps of the first row of a run add the whole run, each its columns. A few rows are asked for together: a token that
// is one of twenty makes runs of hundreds.
template <int n, class T, class To>
__global__ void __launch_bounds__(block_threads)
    add_runs(Indexed a, const std::uint32_t* key, const std::int32_t* value) {
  const std::int64_t first = team_number<32>();
  if (first >= a.count) return;
  const std::uint32_t place = key[first];
  if (place >= a.out.rows || (first > 0 && key[first - 1] == place)) return;
  To* to = row<To>(a.out, place);
  const std::int64_t c = (blockIdx.y * 32 + threadIdx.x % 32) * n;
  if (c >= a.in.width) return;
  constexpr int together = 4;
  float sum[n], x[together][n], factor[together];
  bool of_run[together] = {};
  load(to + c, sum);
  for (std::int64_t i = first; i == first || of_run[together - 1]; i += together) {
#pragma unroll
    for (int k = 0; k < together; ++k) of_run[k] = i + k < a.count && key[i + k] == place;
#pragma unroll
    for (int k = 0; k < together; ++k) {
      if (!of_run[k]) continue;
      const std::int64_t s = value[i + k];
      factor[k] = factor_of<T>(a, s);
      load(row<T>(a.in, s) + c, x[k]);
    }
#pragma unroll
    for (int k = 0; k < together; ++k) {
#pragma unroll
      for (int j = 0; j < n; ++j) {
        if (of_run[k]) sum[j] += factor[k] * x[k][j];
      }
    }
  }
  store(sum, to + c);
}

}  // namespace

void gather_rows(cudaStream_t stream, DType type, const Indexed& a, int* fault) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    const bool packed = in_packs(a.in, sizeof(T), pack_of<T>) && a.in.stride % pack_of<T> == 0;
    const Gather<T> body{a, fault};
    if (packed) {
      for_elements<pack_of<T>>(stream, std::array{a.out}, sizeof(T), body, false);
    } else {
      for_elements<1>(stream, std::array{a.out}, sizeof(T), body, false);
    }
  });
}

void row_dots(cudaStream_t stream, DType type, const Matrix& a, const Matrix& b, const std::int32_t* index,
              float* out, int* fault) {
  constexpr int warps = block_threads / 32;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    const bool packed = in_packs(a, sizeof(T), pack_of<T>) && in_packs(b, sizeof(T), pack_of<T>);
    launch(stream, grid((a.rows + warps - 1) / warps), packed ? dots<pack_of<T>, T> : dots<1, T>, a, b, index,
           out, fault);
  });
}

void order_by_index(cudaStream_t stream, const std::int32_t* index, std::int64_t limit, const Sort& s,
                    int* fault) {
  launch(stream, grid((s.count + block_threads - 1) / block_threads), number_rows, index, s.count, limit,
         s.key, s.value, fault);
  sort(stream, s, bits_for(limit + 1));
}

namespace {

// body(T, To) of values and their sums.
template <class Body>
void with_sum_types(DType type, DType total_type, Body body) {
  with_type(type, [&](auto t) {
    with_type(total_type, [&](auto to) {
      using T = decltype(t);
      using To = decltype(to);
      if constexpr (std::is_same_v<T, To> || std::is_same_v<To, float>) {
        body(T{}, To{});
      } else {
        throw Error(ExitCode::fault, "scatter_add_rows: the sums have the values' type or f32");
      }
    });
  });
}

}  // namespace

void add_to_distinct_rows(cudaStream_t stream, DType type, const Indexed& a, DType total_type, int* fault) {
  with_sum_types(type, total_type, [&](auto t, auto to) {
    using T = decltype(t);
    using To = decltype(to);
    constexpr int n = pack_of<To>;
    const AddRow<T, To> body{a, fault};
    in_packs(a.out, sizeof(To), n) && a.out.stride % n == 0
        ? for_elements<n>(stream, std::array{a.in}, sizeof(T), body, false)
        : for_elements<1>(stream, std::array{a.in}, sizeof(T), body, false);
  });
}

void add_to_sorted_rows(cudaStream_t stream, DType type, const Indexed& a, DType total_type, const Sort& sorted) {
  if (a.count * a.in.width == 0) return;
  constexpr int warps = block_threads / 32;
  with_sum_types(type, total_type, [&](auto t, auto to) {
    using T = decltype(t);
    using To = decltype(to);
    constexpr int n = 4;
    const bool packed = in_packs(a.in, sizeof(T), n) && in_packs(a.out, sizeof(To), n);
    const auto kernel = packed ? add_runs<n, T, To> : add_runs<1, T, To>;
    const std::uint32_t* key = sorted.key;
    const std::int32_t* value = sorted.value;
    const std::int64_t slices = (a.in.width + 32 * (packed ? n : 1) - 1) / (32 * (packed ? n : 1));
    launch(stream, grid((a.count + warps - 1) / warps, slices), kernel, a, key, value);
  });
}

}  // namespace smlp::cuda
