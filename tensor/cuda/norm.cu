// Layer normalisation of the parts of rows, each by a team of threads.
#include "tensor/cuda/activation.cuh"
#include "tensor/cuda/column_sums.cuh"
#include "tensor/cuda/kernels.h"

namespace smlp::cuda {

namespace {

constexpr float epsilon = 1e-5f;

// As many threads, which take packs of `n` adjacent elements in turn.
template <int team_threads, int pack>
struct Team {
  static constexpr int threads = team_threads, n = pack;
  __device__ static std::int64_t column(std::int64_t k) {
    return (k * threads + threadIdx.x % threads) * n;  // the first of a thread's pack k
  }
};

// What a thread has of a part, activated. `held` packs are asked for before any is looked at, and stay in registers; others,
// where these are not the `whole` part, are read each time.
template <class Team, int held, bool whole, class T, Activation kind>
class Packs {
 public:
  static constexpr int n = Team::n;

  __device__ Packs(const T* part, std::int64_t width) : part_(part), width_(width) {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (Team::column(k) < width) load(part + Team::column(k), held_[k]);
    }
#pragma unroll
    for (int k = 0; k < held; ++k) activate(held_[k]);
  }
  // From now on numbers are less by so much.
  __device__ void lower(float by) {
#pragma unroll
    for (int k = 0; k < held * n; ++k) held_[k / n][k % n] -= by;
    lower_ += by;
  }
  // body(first column, numbers of the pack)
  template <class Body>
  __device__ void each(Body body) const {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (Team::column(k) < width_) body(Team::column(k), held_[k]);
    }
    if constexpr (!whole) {
      for (std::int64_t k = held; Team::column(k) < width_; ++k) {
        float pack[n];
        load(part_ + Team::column(k), pack);
        activate(pack);
#pragma unroll
        for (int i = 0; i < n; ++i) pack[i] -= lower_;
        body(Team::column(k), pack);
      }
    }
  }

 private:
  __device__ static void activate(float (&pack)[n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) pack[i] = activated<kind>(pack[i]).value;
  }

  const T* part_;
  std::int64_t width_;
  float held_[held][n] = {}, lower_ = 0;
};

// What the host divides, once for all teams.
struct Sizes {
  explicit Sizes(const Norm& norm) : part_width(norm.x.width / norm.groups), line_rows(norm.x.rows / norm.lines) {}
  std::int64_t part_width, line_rows;
};
// Where the part of a team lies. A team behind the last part has no columns, but takes part in sums.
struct Part {
  std::int64_t number, row, first, width, columns;
  std::int64_t weights;  // where weight and bias begin
};
template <class Team>
__device__ Part part_of(const Norm& norm, const Sizes& sizes) {
  const std::int64_t number = team_number<Team::threads>(), r = norm.groups == 1 ? number : quotient(number, norm.groups);
  const std::int64_t width = sizes.part_width, first = (number - r * norm.groups) * width;
  const std::int64_t line = norm.lines == 1 ? 0 : quotient(r, sizes.line_rows);
  return {number, r, first, width, r < norm.x.rows ? width : 0, line * norm.x.width + first};
}

template <class Team, int held, bool whole, class T, Activation kind>
__global__ void __launch_bounds__(block_threads, held * Team::n > 32 ? 2 : 3)
    normalise(Norm norm, Sizes sizes, Matrix out) {
  constexpr int n = Team::n;
  const Part part = part_of<Team>(norm, sizes);
  Packs<Team, held, whole, T, kind> packs(row<T>(norm.x, part.row) + part.first, part.columns);
  const float share = 1 / static_cast<float>(part.width);
  float sum = 0, squares = 0;
  packs.each([&](std::int64_t, const float(&value)[n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) sum += value[i];
  });
  const float mean = across_team<Team::threads>(sum, Sum{}) * share;
  packs.lower(mean);
  packs.each([&](std::int64_t, const float(&value)[n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) squares += value[i] * value[i];
  });
  const float inverse = rsqrtf(across_team<Team::threads>(squares, Sum{}) * share + epsilon);
  if (threadIdx.x % Team::threads == 0 && part.columns > 0) {
    norm.mean[part.number] = mean;
    norm.inverse_deviation[part.number] = inverse;
  }
  const auto *weight = static_cast<const T*>(norm.weight), *bias = static_cast<const T*>(norm.bias);
  T* to = row<T>(out, part.row) + part.first;
  packs.each([&](std::int64_t c, const float(&value)[n]) {
    float result[n], factor[n], shift[n];
    if (weight) load(weight + part.weights + c, factor);
    if (bias) load(bias + part.weights + c, shift);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      result[i] = value[i] * (weight ? inverse * factor[i] : inverse) + (bias ? shift[i] : 0);
    }
    store(result, to + c);
  });
}

// The team keeps what it computes of a part, `held` packs a thread, between the sums and what follows from them; packs
// beyond, where these are not the `whole` part, are read twice.
template <class Team, int held, bool whole, class T, Activation kind>
__global__ void __launch_bounds__(block_threads, 3)
    normalise_backward(Norm norm, Sizes sizes, Matrix dy, Matrix residual, Matrix dx) {
  constexpr int n = Team::n;
  const Part part = part_of<Team>(norm, sizes);
  const T *x = row<T>(norm.x, part.row) + part.first, *d = row<T>(dy, part.row) + part.first;
  const T* weight = norm.weight ? static_cast<const T*>(norm.weight) + part.weights : nullptr;
  const bool there = part.columns > 0;
  const float mean = there ? norm.mean[part.number] : 0, inverse = there ? norm.inverse_deviation[part.number] : 0;
  // Of a pack: the activation less its mean, the gradient of what was normalised, the activation's slope.
  struct Elements {
    float value[n], gradient[n], slope[n];
  };
  Pair sums{0, 0};
  const auto look = [&](std::int64_t c, const Pack<T, n>& in, const Pack<T, n>& gradient, Elements& at) {
    float factor[n];
    if (weight) load(weight + c, factor);
    widen(in, at.value);
    widen(gradient, at.gradient);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const Point point = activated<kind>(at.value[i]);
      at.value[i] = point.value - mean;
      at.slope[i] = point.slope;
      if (weight) at.gradient[i] *= factor[i];
      sums = sums + Pair{at.gradient[i], at.gradient[i] * at.value[i]};
    }
  };
  Elements kept[held];
  Pack<T, n> in[held], gradient[held];
#pragma unroll
  for (int k = 0; k < held; ++k) {
    if (Team::column(k) >= part.columns) continue;
    in[k] = take<n>(x + Team::column(k));
    gradient[k] = take<n>(d + Team::column(k));
  }
#pragma unroll
  for (int k = 0; k < held; ++k) {
    if (Team::column(k) < part.columns) look(Team::column(k), in[k], gradient[k], kept[k]);
  }
  const auto each_other = [&](auto body) {
    if constexpr (!whole) {
      Elements other;
      for (std::int64_t c = Team::column(held); c < part.columns; c += Team::threads * n) {
        look(c, take<n>(x + c), take<n>(d + c), other);
        body(c, other);
      }
    }
  };
  each_other([](std::int64_t, const Elements&) {});
  sums = across_team<Team::threads>(sums, Sum{});
  const float share = inverse / static_cast<float>(part.width);
  const float sum = sums.first * share, product = sums.second * share * inverse * inverse;
  const T* more = residual.data ? row<T>(residual, part.row) + part.first : nullptr;
  T* to = row<T>(dx, part.row) + part.first;
  const auto write = [&](std::int64_t c, const Elements& at) {
    float result[n], rest[n];
    if (more) load(more + c, rest);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      result[i] = (at.gradient[i] * inverse - (at.value[i] * product + sum)) * at.slope[i];
      if (more) result[i] += rest[i];
    }
    store(result, to + c);
  };
#pragma unroll
  for (int k = 0; k < held; ++k) {
    if (Team::column(k) < part.columns) write(Team::column(k), kept[k]);
  }
  each_other(write);
}

// Terms of dweight and dbias.
template <class T, Activation kind>
struct NormTerm {
  Norm norm;
  std::int64_t group_width;
  Matrix dy;
  std::int64_t column = 0, group = 0;
  __device__ NormTerm of(std::int64_t, std::int64_t c) const { return {norm, group_width, dy, c, quotient(c, group_width)}; }
  template <int n>
  __device__ void add(std::int64_t r, float (&sums)[2][n]) const {
    const std::int64_t part = r * norm.groups + group;
    const float mean = norm.mean[part], inverse = norm.inverse_deviation[part];
    float x[n], d[n];
    load(row<T>(norm.x, r) + column, x);
    load(row<T>(dy, r) + column, d);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      sums[0][i] += d[i] * ((activated<kind>(x[i]).value - mean) * inverse);
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

template <int packs>
using Held = std::integral_constant<int, packs>;

using Whole = std::true_type;
using InPart = std::false_type;

// body(Team, Held, whether that is the whole part) for the smallest team that holds a part in its registers, or the largest.
// A warp that has a whole row waits for no other. Parts that can't be had in packs are rare: one team does for all.
template <int n, class Body>
void with_team_that_holds(std::int64_t width, Body body) {
  if constexpr (n > 1) {
    if (width <= 4 * n) return body(Team<4, n>{}, Held<1>{}, Whole{});
    if (width <= 8 * n) return body(Team<8, n>{}, Held<1>{}, Whole{});
    if (width <= 32 * n) return body(Team<32, n>{}, Held<1>{}, Whole{});
    if (width <= 4 * 32 * n) return body(Team<32, n>{}, Held<4>{}, Whole{});
    if (width <= 4 * 64 * n) return body(Team<64, n>{}, Held<4>{}, Whole{});
    return body(Team<block_threads, n>{}, Held<4>{}, InPart{});
  } else {
    body(Team<32, n>{}, Held<8>{}, InPart{});
  }
}
// The same for the way back, which keeps three numbers of each element.
template <int n, class Body>
void with_team_that_keeps(std::int64_t width, Body body) {
  if constexpr (n > 1) {
    if (width <= 4 * n) return body(Team<4, n>{}, Held<1>{}, Whole{});
    if (width <= 8 * n) return body(Team<8, n>{}, Held<1>{}, Whole{});
    if (width <= 2 * 32 * n) return body(Team<32, n>{}, Held<2>{}, Whole{});
    if (width <= 2 * 64 * n) return body(Team<64, n>{}, Held<2>{}, Whole{});
    if (width <= 2 * 128 * n) return body(Team<128, n>{}, Held<2>{}, Whole{});
    if (width <= 2 * block_threads * n) return body(Team<block_threads, n>{}, Held<2>{}, Whole{});
    return body(Team<block_threads, n>{}, Held<2>{}, InPart{});
  } else {
    body(Team<32, n>{}, Held<4>{}, InPart{});
  }
}

template <class Team>
dim3 teams_for(const Norm& norm) {
  constexpr int together = block_threads / Team::threads;
  return grid((norm.x.rows * norm.groups + together - 1) / together);
}

}  // namespace

void layer_norm(cudaStream_t stream, DType type, const Norm& norm, const Matrix& out) {
  if (norm.x.rows * norm.x.width == 0) return;
  const Sizes sizes(norm);
  with_type_and_kind(type, norm.activation, [&](auto t, auto kind) {
    using T = decltype(t);
    const auto start = [&](auto team, auto held, auto whole) {
      using Team = decltype(team);
      constexpr auto kernel = normalise<Team, decltype(held)::value, decltype(whole)::value, T, decltype(kind)::value>;
      launch(stream, teams_for<Team>(norm), kernel, norm, sizes, out);
    };
    packed<T>(norm, {out}) ? with_team_that_holds<pack_of<T>>(sizes.part_width, start)
                           : with_team_that_holds<1>(sizes.part_width, start);
  });
}

void layer_norm_backward(cudaStream_t stream, DType type, const Norm& norm, const NormBackward& b) {
  const std::int64_t width = norm.x.width;
  if (norm.x.rows * width == 0) return;
  const Sizes sizes(norm);
  with_type_and_kind(type, norm.activation, [&](auto t, auto kind) {
    using T = decltype(t);
    constexpr int n = pack_of<T>;
    constexpr Activation activation = decltype(kind)::value;
    const bool in_n = packed<T>(norm, {b.dy, b.residual, b.dx});
    if (b.scratch) {  // before dx, which may take the place of dy
      const ColumnRuns all = column_runs(sizes.line_rows, width, norm.lines);
      start_partials<2, n>(stream, all, in_n, b.scratch, NormTerm<T, activation>{norm, sizes.part_width, b.dy});
      if (b.dweight) start_totals(stream, all, b.scratch, b.dweight, width);
      if (b.dbias) start_totals(stream, all, b.scratch + all.parts * all.runs * width, b.dbias, width);
    }
    const auto start = [&](auto team, auto held, auto whole) {
      using Team = decltype(team);
      constexpr auto kernel = normalise_backward<Team, decltype(held)::value, decltype(whole)::value, T, activation>;
      launch(stream, teams_for<Team>(norm), kernel, norm, sizes, b.dy, b.residual, b.dx);
    };
    in_n ? with_team_that_keeps<n>(sizes.part_width, start) : with_team_that_keeps<1>(sizes.part_width, start);
  });
}

}  // namespace smlp::cuda
