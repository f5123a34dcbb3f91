// What products end with, and what a device has to know of groups of rows.
#include "tensor/cuda/activation.cuh"
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

namespace {

template <class T>
__device__ const T* bias_of_row(const RowBias& bias, std::int64_t r) {
  const T* data = static_cast<const T*>(bias.data);
  if (bias.groups > 0) {
    std::int64_t group = 0, end = bias.groups;  // group begins at r or before, end behind it
    while (end - group > 1) {
      const std::int64_t middle = (group + end) / 2;
      (bias.first[middle] <= r ? group : end) = middle;
    }
    return data + bias.expert[group] * bias.apart;
  }
  return bias.rows > 0 ? data + quotient(r, bias.rows) * bias.apart : data;
}

template <class T, class To, Activation kind>
struct Finish {
  RowBias bias;
  Matrix out, residual, before;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    float x[n], more[n];
    load(row<To>(out, r) + c, x);
    if (bias.data) load(bias_of_row<T>(bias, r) + c, more);
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] += bias.data ? more[i] : 0;
    if (residual.data) load(row<To>(residual, r) + c, more);
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] += residual.data ? more[i] : 0;
    if (before.data) store(x, row<To>(before, r) + c);
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] = activated<kind>(x[i]).value;
    store(x, row<To>(out, r) + c);
  }
};

constexpr std::int64_t most_words = 256;  // 2 KiB of arguments
struct HostWords {
  std::int64_t word[most_words];
};
__global__ void __launch_bounds__(block_threads)
    store_words(HostWords from, std::int64_t count, std::int64_t* to) {
  if (threadIdx.x < count) to[threadIdx.x] = from.word[threadIdx.x];
}

}  // namespace

void finish(cudaStream_t stream, DType type, const RowBias& bias, DType out_type, const Matrix& out,
            const Matrix& residual, bool gelu, const Matrix& before) {
  const std::int64_t biases = bias.rows > 0 || bias.groups > 0 ? 2 : 1;
  const Matrix shift{const_cast<void*>(bias.data), biases, out.width, bias.apart};
  const auto or_out = [&](const Matrix& m) { return m.data ? m : out; };
  const std::array all{out, or_out(residual), or_out(before)};
  const auto start = [&](auto body) {
    in_packs(shift, size_of(type), 4) ? for_elements<4>(stream, all, size_of(out_type), body, false)
                                      : for_elements<1>(stream, all, size_of(out_type), body, false);
  };
  with_type(type, [&](auto t) {
    with_type(out_type, [&](auto w) {
      using T = decltype(t);
      using To = decltype(w);
      if constexpr (std::is_same_v<T, To> || std::is_same_v<To, float>) {
        gelu ? start(Finish<T, To, Activation::gelu_tanh>{bias, out, residual, before})
             : start(Finish<T, To, Activation::none>{bias, out, residual, before});
      } else {
        throw Error(ExitCode::fault, "a product has its values' type or f32");
      }
    });
  });
}

void put_words(cudaStream_t stream, std::span<const std::int64_t> words, std::int64_t* to) {
  static_assert(most_words <= block_threads);
  const auto count = static_cast<std::int64_t>(words.size());
  for (std::int64_t first = 0; first < count; first += most_words) {
    const std::int64_t some = std::min(most_words, count - first);
    HostWords arguments{};
    std::copy_n(words.begin() + first, some, arguments.word);
    launch(stream, grid(1), store_words, arguments, some, to + first);
  }
}

}  // namespace smlp::cuda
