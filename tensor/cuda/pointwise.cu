// Element by element: moves, conversions, activations, dropout.
#include "tensor/cuda/activation.cuh"
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace smlp::cuda {

namespace {

template <class T>
struct Fill {
  Matrix out;
  T value;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    Pack<T, n> pack;
#pragma unroll
    for (int i = 0; i < n; ++i) pack.value[i] = value;
    put(pack, row<T>(out, r) + c);
  }
};

template <class T>
void fill_with(cudaStream_t stream, const Matrix& out, T value) {
  for_elements<pack_of<T>>(stream, std::array{out}, sizeof(T), Fill<T>{out, value});
}

template <class To, class From>
__device__ To number(From value) {
  if constexpr (sizeof(From) == 8 && sizeof(To) == 8) {
    return value;
  } else {
    return narrow<To>(widen(value));
  }
}

template <class From, class To>
struct Convert {
  Matrix from, to;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    const auto in = *reinterpret_cast<const Pack<From, n>*>(row<From>(from, r) + c);
    Pack<To, n> out;
#pragma unroll
    for (int i = 0; i < n; ++i) out.value[i] = number<To>(in.value[i]);
    put(out, row<To>(to, r) + c);
  }
};

template <class T>
struct Add {
  Matrix a, b, out;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    float x[n], y[n];
    load(row<T>(a, r) + c, x);
    load(row<T>(b, r) + c, y);
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] += y[i];
    store(x, row<T>(out, r) + c);
  }
};

template <class T, Activation kind>
struct Activate {
  Matrix in, out;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    float x[n];
    load(row<T>(in, r) + c, x);
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] = activated<kind>(x[i]).value;
    store(x, row<T>(out, r) + c);
  }
};

template <class T, Activation kind>
struct ActivateBackward {
  Matrix in, dout, din;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    float x[n], d[n];
    load(row<T>(in, r) + c, x);
    load(row<T>(dout, r) + c, d);
#pragma unroll
    for (int i = 0; i < n; ++i) d[i] *= activated<kind>(x[i]).slope;
    store(d, row<T>(din, r) + c);
  }
};

// x becomes change(word of its place in the stream, x) + residual (none: null): tensor/dropout.h.
template <class T, class Change>
struct ByWords {
  Matrix in, residual, out;
  std::uint64_t key;
  std::int64_t first;  // place of element (0, 0)
  Change change;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    float x[n];
    load(row<T>(in, r) + c, x);
    const auto place = static_cast<std::uint64_t>(first + r * in.width + c);
    const auto word_of = [](const Words& words, std::uint64_t at) {
      const std::uint32_t low = at % 2 == 0 ? words.word[0] : words.word[1];
      const std::uint32_t high = at % 2 == 0 ? words.word[2] : words.word[3];
      return at % 4 < 2 ? low : high;
    };
    if (n % 4 == 0 && place % 4 == 0) {  // each four share their words, and nothing has to be asked
#pragma unroll
      for (int i = 0; i < n; i += 4) {
        const Words words = philox_words(key, (place + i) / 4, 2);
#pragma unroll
        for (int k = i; k < i + 4 && k < n; ++k) x[k] = change(word_of(words, k - i), x[k]);
      }
    } else {
      Words words = philox_words(key, place / 4, 2);
      for (int i = 0; i < n; ++i) {
        if (i > 0 && (place + i) % 4 == 0) words = philox_words(key, (place + i) / 4, 2);
        x[i] = change(word_of(words, place + i), x[i]);
      }
    }
    if (residual.data) {
      float more[n];
      load(row<T>(residual, r) + c, more);
#pragma unroll
      for (int i = 0; i < n; ++i) x[i] += more[i];
    }
    store(x, row<T>(out, r) + c);
  }
};

// The same, where key and first follow from what the device's memory says.
template <class T, class Change>
struct ByWordsOfPlace : ByWords<T, Change> {
  std::uint64_t stream_key;
  const std::int64_t* place;
  __device__ void prepare() {
    SMLP_SHARED(std::uint64_t, found, 1);
    if (threadIdx.x == 0) {
      const Words words = philox_words(stream_key, static_cast<std::uint64_t>(place[StreamPlace::step]), 0);
      found[0] = std::uint64_t{words.word[1]} << 32 | words.word[0];
    }
    __syncthreads();
    this->key = found[0];
    this->first = place[StreamPlace::first_row] * this->in.width;
  }
};

struct Drop {
  std::uint32_t threshold;
  float scale;
  __device__ float operator()(std::uint32_t word, float x) const { return word >= threshold ? x * scale : 0; }
};

struct Jitter {
  float least, step;
  __device__ float operator()(std::uint32_t word, float x) const {
    return x * (least + step * static_cast<float>(word));
  }
};

template <class T>
struct CopyLower {
  Squares in;
  T* out;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    const std::int64_t i = quotient(r, in.length), t = r - i * in.length;
    float x[n] = {};
    if (c <= t) load(static_cast<const T*>(in.data) + i * in.apart + t * in.stride + c, x);
#pragma unroll
    for (int k = 0; k < n; ++k) x[k] = c + k <= t ? x[k] : 0;
    store(x, out + r * in.length + c);
  }
};

struct AddLower {
  LowerSums s;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    const std::int64_t i = s.count == 1 ? 0 : quotient(r, s.rows), t = r - i * s.rows, beyond = t + s.first - c;
    if (beyond < 0) return;  // all of it lies above the diagonal
    const float* from = s.panel + i * s.panels * s.panel_apart + t * s.panel_stride + c;
    float* to = s.out + i * s.out_apart + t * s.out_stride + c;
    float sum[n] = {}, total[n];
    load(to, total);
#pragma unroll 4
    for (std::int64_t p = 0; p < s.panels; ++p) {
      float more[n];
      load(from + p * s.panel_apart, more);
#pragma unroll
      for (int k = 0; k < n; ++k) sum[k] += more[k];
    }
#pragma unroll
    for (int k = 0; k < n; ++k) total[k] += k <= beyond ? sum[k] : 0;
    store(total, to);
  }
};

// Blocks of rows, in whole units of memory.
template <class Unit>
__global__ void __launch_bounds__(block_threads)
    copy_blocks(const Unit* from, Unit* to, std::int64_t from_pitch, std::int64_t to_pitch,
                std::int64_t width, RowBlocks blocks) {
  const RowBlock block = blocks.block[blockIdx.y];
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < block.rows * width; i += step) {
    const std::int64_t r = i / width, c = i - r * width;
    to[(block.to + r) * to_pitch + c] = from[(block.from + r) * from_pitch + c];
  }
}

template <class Unit>
void copy_units(cudaStream_t stream, const Matrix& from, const Matrix& to, std::int64_t size,
                const RowBlocks& blocks) {
  const std::int64_t unit = sizeof(Unit), width = from.width * size / unit;
  std::int64_t most = 0;
  for (int i = 0; i < blocks.count; ++i) most = std::max(most, blocks.block[i].rows);
  launch(stream, grid(blocks_for(most * width, 4 * block_threads), blocks.count), copy_blocks<Unit>,
         static_cast<const Unit*>(from.data), static_cast<Unit*>(to.data), from.stride * size / unit,
         to.stride * size / unit, width, blocks);
}

}  // namespace

void fill(cudaStream_t stream, DType type, const Matrix& out, double value) {
  switch (type) {
    case DType::f64:
      return fill_with(stream, out, value);
    case DType::i64:
      return fill_with(stream, out, static_cast<std::int64_t>(value));
    case DType::i32:
      return fill_with(stream, out, static_cast<std::int32_t>(value));
    case DType::u8:
      return fill_with(stream, out, static_cast<std::uint8_t>(value));
    case DType::f32:
      return fill_with(stream, out, static_cast<float>(value));
    case DType::bf16:
      return fill_with(stream, out, __float2bfloat16_rn(static_cast<float>(value)));
    case DType::f16:
      return fill_with(stream, out, __float2half_rn(static_cast<float>(value)));
  }
}

void convert(cudaStream_t stream, DType from_type, const Matrix& from, DType to_type, const Matrix& to) {
  with_number(from_type, [&](auto f) {
    with_number(to_type, [&](auto t) {
      using From = decltype(f);
      using To = decltype(t);
      const Convert<From, To> body{from, to};
      for_elements<4>(stream, std::array{from, to}, std::max(sizeof(From), sizeof(To)), body);
    });
  });
}

void copy_rows(cudaStream_t stream, std::int64_t size, const Matrix& from, const Matrix& to,
               const RowBlocks& blocks) {
  const auto bytes = [&](const Matrix& m) {
    return reinterpret_cast<std::uintptr_t>(m.data) | static_cast<std::uintptr_t>(m.stride * size);
  };
  const std::uintptr_t all = bytes(from) | bytes(to) | static_cast<std::uintptr_t>(from.width * size);
  if (all % 16 == 0) return copy_units<Pack<std::uint32_t, 4>>(stream, from, to, size, blocks);
  if (all % 4 == 0) return copy_units<std::uint32_t>(stream, from, to, size, blocks);
  if (all % 2 == 0) return copy_units<std::uint16_t>(stream, from, to, size, blocks);
  copy_units<std::uint8_t>(stream, from, to, size, blocks);
}

void add(cudaStream_t stream, DType type, const Matrix& a, const Matrix& b, const Matrix& out) {
  with_type(type, [&](auto t) {
    using T = decltype(t);
    for_elements<pack_of<T>>(stream, std::array{a, b, out}, sizeof(T), Add<T>{a, b, out});
  });
}

void activate(cudaStream_t stream, DType type, Activation kind, const Matrix& in, const Matrix& out) {
  with_type_and_kind(type, kind, [&](auto t, auto k) {
    using T = decltype(t);
    for_elements<pack_of<T>>(stream, std::array{in, out}, sizeof(T), Activate<T, decltype(k)::value>{in, out});
  });
}

void activate_backward(cudaStream_t stream, DType type, Activation kind, const Matrix& in, const Matrix& dout,
                       const Matrix& din) {
  with_type_and_kind(type, kind, [&](auto t, auto k) {
    using T = decltype(t);
    for_elements<pack_of<T>>(stream, std::array{in, dout, din}, sizeof(T),
                             ActivateBackward<T, decltype(k)::value>{in, dout, din});
  });
}

void dropout(cudaStream_t stream, DType type, const Matrix& in, double rate, std::uint64_t stream_key,
             const std::int64_t* place, const Matrix& residual, const Matrix& out) {
  const Drop change{static_cast<std::uint32_t>(rate * 4294967296.0), static_cast<float>(1 / (1 - rate))};
  with_type(type, [&](auto t) {
    using T = decltype(t);
    for_elements<pack_of<T>>(stream, std::array{in, residual.data ? residual : in, out}, sizeof(T),
                             ByWordsOfPlace<T, Drop>{{in, residual, out, 0, 0, change}, stream_key, place});
  });
}

void jitter(cudaStream_t stream, DType type, const Matrix& in, double amount, std::uint64_t key,
            std::int64_t first_row, const Matrix& out) {
  const Jitter change{static_cast<float>(1 - amount), static_cast<float>(amount / 2147483648.0)};
  with_type(type, [&](auto t) {
    using T = decltype(t);
    for_elements<pack_of<T>>(stream, std::array{in, out}, sizeof(T),
                             ByWords<T, Jitter>{in, {}, out, key, first_row * in.width, change});
  });
}

void copy_lower(cudaStream_t stream, DType type, const Squares& in, void* out) {
  const std::int64_t rows = in.count * in.length;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    const auto with_stride = [&](std::int64_t stride) { return Matrix{in.data, rows, in.length, stride}; };
    for_elements<pack_of<T>>(stream,
                             std::array{with_stride(in.stride), with_stride(in.count > 1 ? in.apart : in.stride),
                                        Matrix{out, rows, in.length, in.length}},
                             sizeof(T), CopyLower<T>{in, static_cast<T*>(out)}, false);
  });
}

void add_lower(cudaStream_t stream, const LowerSums& s) {
  // In packs where every row of every panel and square begins with one: what lies apart is asked as if it were rows.
  const std::int64_t rows = s.count * s.rows, width = s.first + s.rows;
  const auto panel = [&](std::int64_t stride) { return Matrix{const_cast<float*>(s.panel), rows, width, stride}; };
  const auto out = [&](std::int64_t stride) { return Matrix{s.out, rows, width, stride}; };
  for_elements<4>(stream,
                  std::array{out(s.out_stride), out(s.count > 1 ? s.out_apart : s.out_stride), panel(s.panel_stride),
                             panel(s.panel_apart)},
                  sizeof(float), AddLower{s}, false);
}

}  // namespace smlp::cuda
