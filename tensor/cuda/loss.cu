// Softmax cross-entropy, sums, and AdamW.
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

namespace {

// One block a row: the greatest logit and the sum of exponentials in one reading, the gradient in a second.
template <int n, class T>
__global__ void __launch_bounds__(block_threads)
    cross_entropy_row(Matrix logits, const std::int32_t* targets, double* row_loss, const double* scale,
                      bool gradient, int* fault) {
  for (std::int64_t r = blockIdx.x; r < logits.rows; r += gridDim.x) {
    T* x = row<T>(logits, r);
    const std::int64_t target = targets[r], begin = static_cast<std::int64_t>(threadIdx.x) * n;
    constexpr std::int64_t step = block_threads * n;
    if (target < 0 || target >= logits.width) {
      if (threadIdx.x == 0) row_loss[r] = 0;
      if (target >= logits.width) *fault = static_cast<int>(FaultKind::target);
      const float zeros[n] = {};
      for (std::int64_t c = begin; gradient && c < logits.width; c += step) store(zeros, x + c);
      continue;
    }
    float most = -INFINITY, sum = 0, value[n];
    for (std::int64_t c = begin; c < logits.width; c += step) {
      load(x + c, value);
      float greater = most;
#pragma unroll
      for (int i = 0; i < n; ++i) greater = value[i] > greater ? value[i] : greater;
      if (greater > most) {
        sum *= near_exp(most - greater);
        most = greater;
      }
#pragma unroll
      for (int i = 0; i < n; ++i) sum += near_exp(value[i] - most);
    }
    const float logit = widen(x[target]), all_most = across_block(most, Most{});
    const double mine = most == -INFINITY
                            ? static_cast<double>(sum)
                            : static_cast<double>(sum) * exp(static_cast<double>(most - all_most));
    const double total = across_block(mine, Sum{});
    const double above = static_cast<double>(logit) - static_cast<double>(all_most);
    if (threadIdx.x == 0) row_loss[r] = log(total) - above;
    if (!gradient) continue;
    const double wanted = *scale;
    const auto factor = static_cast<float>(wanted / total);
    for (std::int64_t c = begin; c < logits.width; c += step) {
      load(x + c, value);
#pragma unroll
      for (int i = 0; i < n; ++i) value[i] = near_exp(value[i] - all_most) * factor;
      store(value, x + c);
    }
    if (target / n % block_threads == threadIdx.x) {  // it is this thread that has written there
      x[target] = narrow<T>(static_cast<float>((exp(above) / total - 1) * wanted));
    }
  }
}

// Adds the elements of packs i, i + step ... in f64; `together` of them are asked for before the first is added.
template <int n, int together, class T>
__device__ void add_packs(const T* x, std::int64_t packs, std::int64_t step, bool squares, std::int64_t& i, double& sum) {
  for (; i + (together - 1) * step < packs; i += together * step) {
    float value[together][n];
#pragma unroll
    for (int k = 0; k < together; ++k) load(x + (i + k * step) * n, value[k]);
#pragma unroll
    for (int k = 0; k < together * n; ++k) {
      const auto wide = static_cast<double>(value[k / n][k % n]);
      sum += wide * (squares ? wide : 1.0);
    }
  }
}

// Of elements that lie side by side: a gradient of gigabytes is read once, at the memory's rate.
template <int n, class T>
__global__ void __launch_bounds__(block_threads)
    partial_sums_of_packs(const T* x, std::int64_t packs, bool squares, double* partial) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * block_threads;
  std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  double sum = 0;
  add_packs<n, 4>(x, packs, step, squares, i, sum);
  add_packs<n, 1>(x, packs, step, squares, i, sum);
  sum = across_block(sum, Sum{});
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class T>
__global__ void __launch_bounds__(block_threads) partial_sums(Matrix x, bool squares, double* partial) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * block_threads;
  double sum = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < x.rows * x.width;
       i += step) {
    const std::int64_t r = quotient(i, x.width);
    const T element = row<T>(x, r)[i - r * x.width];
    double value = 0;
    if constexpr (std::is_same_v<T, double>) {
      value = element;
    } else {
      value = static_cast<double>(widen(element));
    }
    sum += squares ? value * value : value;
  }
  sum = across_block(sum, Sum{});
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(block_threads) add_partials(const double* partial, int count, double* add_to) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += block_threads) sum += partial[i];
  sum = across_block(sum, Sum{});
  if (threadIdx.x == 0) *add_to += sum;
}

template <class T, bool has_master>
struct AdamW {
  Update u;
  float beta1, beta2, rest1, rest2, eps;

  template <int n>
  __device__ void at(std::int64_t, std::int64_t i) const {
    const double squared_norm = u.control[StepControl::squared_norm];
    if (!isfinite(squared_norm)) return;
    const double rate = u.control[StepControl::learning_rate];
    double factor = u.control[StepControl::gradient_scale];
    if (u.settings.clip_norm > 0) {
      const double clipped = u.settings.clip_norm / (sqrt(squared_norm) * factor + 1e-6);
      if (clipped < 1) factor *= clipped;
    }
    const auto scale = static_cast<float>(factor), decay = static_cast<float>(rate * u.settings.weight_decay);
    const auto step = static_cast<float>(rate * u.control[StepControl::correction]);
    float g[n], m[n], v[n], p[n];
    T* value = static_cast<T*>(u.value) + i;
    load(u.grad + i, g);
    load(u.m + i, m);
    load(u.v + i, v);
    if constexpr (has_master) {
      load(u.master + i, p);
    } else {
      load(value, p);
    }
#pragma unroll
    for (int k = 0; k < n; ++k) {
      g[k] *= scale;
      m[k] = beta1 * m[k] + rest1 * g[k];
      v[k] = beta2 * v[k] + rest2 * g[k] * g[k];
      p[k] -= decay * p[k];
      p[k] -= step * m[k] / (sqrtf(v[k]) + eps);
    }
    store(m, u.m + i);
    store(v, u.v + i);
    if constexpr (has_master) store(p, u.master + i);
    store(p, value);
  }
};

template <class T, bool has_master>
void start_adamw(cudaStream_t stream, const Update& u) {
  const auto flat = [&](const void* data) { return Matrix{const_cast<void*>(data), 1, u.count, u.count}; };
  const AdamWSettings& s = u.settings;
  const AdamW<T, has_master> body{u,
                                  static_cast<float>(s.beta1),
                                  static_cast<float>(s.beta2),
                                  static_cast<float>(1 - s.beta1),
                                  static_cast<float>(1 - s.beta2),
                                  static_cast<float>(s.eps)};
  // All of f32 by fours; the values, where they are narrow, lie as their places among those do.
  for_elements<4>(
      stream,
      std::array{flat(u.grad), flat(u.m), flat(u.v), flat(has_master ? u.master : u.m), flat(u.value)},
      sizeof(float), body);
}

}  // namespace

void cross_entropy(cudaStream_t stream, DType type, const Matrix& logits, const std::int32_t* targets,
                   double* row_loss, const double* scale, bool gradient, int* fault) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    const auto kernel =
        in_packs(logits, sizeof(T), pack_of<T>) ? cross_entropy_row<pack_of<T>, T> : cross_entropy_row<1, T>;
    launch(stream, grid(std::min(most_blocks, logits.rows)), kernel, logits, targets, row_loss, scale,
           gradient, fault);
  });
}

void sum(cudaStream_t stream, DType type, const Matrix& x, bool squares, double* add_to, double* scratch) {
  const std::int64_t size = x.rows * x.width;
  if (size == 0) return;
  std::int64_t blocks = std::min<std::int64_t>(sum_blocks, blocks_for(size, block_threads));
  with_number(type, [&](auto t) {
    using T = decltype(t);
    if constexpr (!std::is_same_v<T, double>) {
      constexpr int n = pack_of<T>;
      if (x.stride == x.width && in_packs({x.data, 1, size, size}, sizeof(T), n)) {
        blocks = std::min<std::int64_t>(sum_blocks, blocks_for(size / n, block_threads));
        return launch(stream, grid(blocks), partial_sums_of_packs<n, T>, static_cast<const T*>(x.data), size / n, squares, scratch);
      }
    }
    launch(stream, grid(blocks), partial_sums<T>, x, squares, scratch);
  });
  launch(stream, grid(1), add_partials, scratch, static_cast<int>(blocks), add_to);
}

void adamw(cudaStream_t stream, DType type, const Update& u) {
  if (u.count == 0) return;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    if (u.master) return start_adamw<T, true>(stream, u);
    start_adamw<T, false>(stream, u);
  });
}

}  // namespace smlp::cuda
