// Sums over rows, and columns by index.
#include "tensor/cuda/column_sums.cuh"
#include "tensor/cuda/sequences.cuh"

namespace smlp::cuda {

namespace {

template <class T>
struct Term {
  Matrix x;
  std::int64_t column = 0;
  __device__ Term of(std::int64_t, std::int64_t c) const { return {x, c}; }
  template <int n>
  __device__ void add(std::int64_t r, float (&sums)[1][n]) const {
    float value[n];
    load(row<T>(x, r) + column, value);
#pragma unroll
    for (int i = 0; i < n; ++i) sums[0][i] += value[i];
  }
};

template <class T>
struct ProductTerm {
  Sequences a, b;
  std::int64_t sequence = 0, column = 0;
  __device__ ProductTerm of(std::int64_t part, std::int64_t c) const { return {a, b, part, c}; }
  template <int n>
  __device__ void add(std::int64_t r, float (&sums)[1][n]) const {
    const std::int64_t t = r - sequence * a.length;
    float x[n], y[n];
    load(row<T>(a, sequence, t) + column, x);
    load(row<T>(b, sequence, t) + column, y);
#pragma unroll
    for (int i = 0; i < n; ++i) sums[0][i] += x[i] * y[i];
  }
};

template <class T, bool gathers>
struct ByColumn {
  Columns columns;
  int* fault;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    static_assert(n == 1);
    const Sequences& in = columns.in;
    const std::int64_t b = quotient(r, in.length), t = r - b * in.length, place = b * in.channels + c;
    const std::int32_t other = columns.index[place];
    if (other < 0 || other >= in.channels) {
      *fault = static_cast<int>(FaultKind::column);
      return;
    }
    const T* from = row<T>(in, b, t) + (gathers ? other : c);
    T* to = row<T>(columns.out, b, t) + (gathers ? c : other);
    *to =
        columns.scale ? narrow<T>(widen(static_cast<const T*>(columns.scale)[place]) * widen(*from)) : *from;
  }
};

template <bool gathers>
void move_columns(cudaStream_t stream, DType type, const Columns& c, int* fault) {
  with_type(type, [&](auto t) {
    for_channels<1>(stream, c.in, false, ByColumn<decltype(t), gathers>{c, fault});
  });
}

}  // namespace

std::int64_t column_sum_floats(std::int64_t rows, std::int64_t width, std::int64_t parts) {
  return parts * column_runs(rows, width, parts).runs * width;
}

void sum_rows(cudaStream_t stream, DType type, const Matrix& x, DType total_type, const RowSums& to, float* scratch) {
  if (x.rows * x.width == 0) return;
  const ColumnRuns all = column_runs(x.rows / to.parts, x.width, to.parts);
  with_type(type, [&](auto t) {
    using T = decltype(t);
    start_partials<1, pack_of<T>>(stream, all, in_packs(x, sizeof(T), pack_of<T>), scratch, Term<T>{x});
  });
  with_type(total_type, [&](auto t) {
    start_totals(stream, all, scratch, static_cast<decltype(t)*>(to.add_to), to.apart);
  });
}

void gather_columns(cudaStream_t stream, DType type, const Columns& c, int* fault) {
  move_columns<true>(stream, type, c, fault);
}
void scatter_columns(cudaStream_t stream, DType type, const Columns& c, int* fault) {
  move_columns<false>(stream, type, c, fault);
}

void column_dots(cudaStream_t stream, DType type, const Sequences& a, const Sequences& b, float* out) {
  if (a.sequences * a.channels == 0) return;
  const ColumnRuns all{a.length, a.channels, a.sequences, 1, a.length};
  with_type(type, [&](auto t) {
    using T = decltype(t);
    const bool packed = in_packs(a, sizeof(T), pack_of<T>) && in_packs(b, sizeof(T), pack_of<T>);
    start_partials<1, pack_of<T>>(stream, all, packed, out, ProductTerm<T>{a, b});
  });
}

}  // namespace smlp::cuda
