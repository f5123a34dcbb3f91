// Layer normalisation of the parts of rows, each by a team that keeps it in registers.
#include "tensor/cuda/activation.cuh"
#include "tensor/cuda/column_sums.cuh"
#include "tensor/cuda/kernels.h"

namespace smlp::cuda {

namespace {

constexpr float epsilon = 1e-5f;

// As many threads, each of which has `held` packs of `n` adjacent elements in registers.
template <int team_threads, int pack, int held_packs>
struct Team {
  static constexpr int threads = team_threads, n = pack, held = held_packs;
};

// What a thread has of a row: `kinds` numbers an element, from fetch(c, numbers). Packs that no register holds are
// fetched each time.
template <class Team, int kinds, class Fetch>
class Row {
 public:
  static constexpr int n = Team::n, held = Team::held, step = Team::threads * n;

  __device__ Row(std::int64_t width, Fetch fetch) : width_(width), fetch_(fetch) {
    each_held([&](std::int64_t c, float(&numbers)[kinds][n]) { fetch_(c, numbers); });
  }
  // body(first column, numbers of the pack)
  template <class Body>
  __device__ void each(Body body) {
    each_held(body);
    for (std::int64_t c = first() + std::int64_t{held} * step; c < width_; c += step) {
      float numbers[kinds][n];
      fetch_(c, numbers);
      body(c, numbers);
    }
  }

 private:
  __device__ static std::int64_t first() { return static_cast<std::int64_t>(threadIdx.x % Team::threads) * n; }
  template <class Body>
  __device__ void each_held(Body body) {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      const std::int64_t c = first() + std::int64_t{k} * step;
      if (c < width_) body(c, numbers_[k]);
    }
  }

  std::int64_t width_;
  Fetch fetch_;
  float numbers_[held][kinds][n];
};

template <class Team, int kinds, class Fetch>
__device__ Row<Team, kinds, Fetch> row_of(std::int64_t width, Fetch fetch) {
  return {width, fetch};
}

// Where the part of a team lies. A team behind the last part has no columns, but takes part in sums.
struct Part {
  std::int64_t number, row, first, width, columns;
};
template <class Team>
__device__ Part part_of(const Norm& norm) {
  const std::int64_t number = team_number<Team::threads>(), r = quotient(number, norm.groups);
  const std::int64_t width = norm.x.width / norm.groups;
  return {number, r, (number - r * norm.groups) * width, width, r < norm.x.rows ? width : 0};
}

template <class Team, class T>
__global__ void __launch_bounds__(block_threads) normalise(Norm norm, Matrix out) {
  constexpr int n = Team::n;
  const Part part = part_of<Team>(norm);
  const T* x = row<T>(norm.x, part.row) + part.first;
  auto packs = row_of<Team, 1>(part.columns, [=](std::int64_t c, float(&value)[1][n]) {
    load(x + c, value[0]);
#pragma unroll
    for (int i = 0; i < n; ++i) value[0][i] = activated(norm.activation, value[0][i]);
  });
  const auto width = static_cast<float>(part.width);
  float sum = 0, squares = 0;
  packs.each([&](std::int64_t, float(&value)[1][n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) sum += value[0][i];
  });
  const float mean = across_team<Team::threads>(sum, Sum{}) / width;
  packs.each([&](std::int64_t, float(&value)[1][n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) squares += (value[0][i] - mean) * (value[0][i] - mean);
  });
  const float inverse = 1 / sqrtf(across_team<Team::threads>(squares, Sum{}) / width + epsilon);
  if (threadIdx.x % Team::threads == 0 && part.columns > 0) {
    norm.mean[part.number] = mean;
    norm.inverse_deviation[part.number] = inverse;
  }
  const auto *weight = static_cast<const T*>(norm.weight), *bias = static_cast<const T*>(norm.bias);
  T* to = row<T>(out, part.row) + part.first;
  packs.each([&](std::int64_t c, float(&value)[1][n]) {
    float result[n], factor[n], shift[n];
    if (weight) load(weight + part.first + c, factor);
    if (bias) load(bias + part.first + c, shift);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      result[i] = (value[0][i] - mean) * inverse;
      if (weight) result[i] *= factor[i];
      if (bias) result[i] += shift[i];
    }
    store(result, to + c);
  });
}

template <class Team, class T>
__global__ void __launch_bounds__(block_threads)
    normalise_backward(Norm norm, Matrix dy, Matrix residual, Matrix dx) {
  constexpr int n = Team::n;
  const Part part = part_of<Team>(norm);
  const T *x = row<T>(norm.x, part.row) + part.first, *d = row<T>(dy, part.row) + part.first;
  const T* weight = norm.weight ? static_cast<const T*>(norm.weight) + part.first : nullptr;
  const bool there = part.columns > 0;
  const float mean = there ? norm.mean[part.number] : 0, inverse = there ? norm.inverse_deviation[part.number] : 0;
  // The normalised element and the gradient of it.
  auto packs = row_of<Team, 2>(part.columns, [=](std::int64_t c, float(&pair)[2][n]) {
    float factor[n];
    load(x + c, pair[0]);
    load(d + c, pair[1]);
    if (weight) load(weight + c, factor);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      pair[0][i] = (activated(norm.activation, pair[0][i]) - mean) * inverse;
      if (weight) pair[1][i] *= factor[i];
    }
  });
  float sum = 0, product = 0;
  packs.each([&](std::int64_t, float(&pair)[2][n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) {
      sum += pair[1][i];
      product += pair[1][i] * pair[0][i];
    }
  });
  sum = across_team<Team::threads>(sum, Sum{}) / static_cast<float>(part.width);
  product = across_team<Team::threads>(product, Sum{}) / static_cast<float>(part.width);
  const T* more = residual.data ? row<T>(residual, part.row) + part.first : nullptr;
  T* to = row<T>(dx, part.row) + part.first;
  packs.each([&](std::int64_t c, float(&pair)[2][n]) {
    float result[n], rest[n], before[n];
    if (more) load(more + c, rest);
    if (norm.activation != Activation::none) load(x + c, before);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      result[i] = (pair[1][i] - sum - pair[0][i] * product) * inverse;
      if (norm.activation != Activation::none) result[i] *= slope(norm.activation, before[i]);
      if (more) result[i] += rest[i];
    }
    store(result, to + c);
  });
}

// Terms of dweight and dbias.
template <class T>
struct NormTerm {
  Norm norm;
  std::int64_t group_width;
  Matrix dy;
  template <int n>
  __device__ void add(std::int64_t r, std::int64_t c, float (&sums)[2][n]) const {
    const std::int64_t part = r * norm.groups + quotient(c, group_width);
    const float mean = norm.mean[part], inverse = norm.inverse_deviation[part];
    float x[n], d[n];
    load(row<T>(norm.x, r) + c, x);
    load(row<T>(dy, r) + c, d);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      sums[0][i] += d[i] * ((activated(norm.activation, x[i]) - mean) * inverse);
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

// body(Team) for the smallest team that can hold a part in registers, or the largest.
template <int n, class Body>
void with_team(std::int64_t width, Body body) {
  if (width <= 8 * n) return body(Team<8, n, 1>{});
  if (width <= 32 * n) return body(Team<32, n, 1>{});
  if (width <= 4 * 32 * n) return body(Team<32, n, 4>{});
  if (width <= block_threads * n) return body(Team<block_threads, n, 1>{});
  body(Team<block_threads, n, 4>{});
}

template <class Team>
dim3 teams_for(const Norm& norm) {
  constexpr int together = block_threads / Team::threads;
  return grid((norm.x.rows * norm.groups + together - 1) / together);
}

}  // namespace

void layer_norm(cudaStream_t stream, DType type, const Norm& norm, const Matrix& out) {
  if (norm.x.rows * norm.x.width == 0) return;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    const auto start = [&](auto team) {
      using Team = decltype(team);
      launch(stream, teams_for<Team>(norm), normalise<Team, T>, norm, out);
    };
    const std::int64_t width = norm.x.width / norm.groups;
    packed<T>(norm, {out}) ? with_team<pack_of<T>>(width, start) : with_team<1>(width, start);
  });
}

void layer_norm_backward(cudaStream_t stream, DType type, const Norm& norm, const NormBackward& b) {
  const std::int64_t rows = norm.x.rows, width = norm.x.width, part = width / norm.groups;
  if (rows * width == 0) return;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    constexpr int n = pack_of<T>;
    const bool in_n = packed<T>(norm, {b.dy, b.residual, b.dx});
    if (b.scratch) {  // before dx, which may take the place of dy
      const ColumnRuns all = column_runs(rows, width);
      const NormTerm<T> term{norm, part, b.dy};
      start_partials<2, n>(stream, all, in_n, b.scratch, term);
      if (b.dweight) start_totals(stream, all, b.scratch, b.dweight);
      if (b.dbias) start_totals(stream, all, b.scratch + all.runs * width, b.dbias);
    }
    const auto start = [&](auto team) {
      using Team = decltype(team);
      launch(stream, teams_for<Team>(norm), normalise_backward<Team, T>, norm, b.dy, b.residual, b.dx);
    };
    in_n ? with_team<n>(part, start) : with_team<1>(part, start);
  });
}

}  // namespace smlp::cuda
