// The gate of the spatial gating unit.
#include "tensor/cuda/sequences.cuh"

namespace smlp::cuda {

namespace {

// Row r of the call: position r % length of sequence r / length.
template <class T>
struct Open {
  Gate gate;
  std::int64_t group_channels;
  Sequences u, z, out;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    const std::int64_t b = quotient(r, u.length), t = r - b * u.length;
    const std::int64_t group = quotient(c, group_channels);
    const float bias = widen(static_cast<const T*>(gate.bias)[group * gate.bias_stride + t]);
    float x[n], g[n];
    load(row<T>(u, b, t) + c, x);
    load(row<T>(z, b, t) + c, g);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      g[i] = widen(narrow<T>(g[i] + bias));  // as it is kept
      x[i] *= g[i];
    }
    store(g, row<T>(z, b, t) + c);
    store(x, row<T>(out, b, t) + c);
  }
};

// One block for each position and group: the sum over sequences and channels has one writer.
template <int n, class T>
__global__ void __launch_bounds__(block_threads)
    open_backward(Gate gate, Sequences u, Sequences opened, Sequences dout, Sequences du, Sequences dz) {
  const std::int64_t channels = u.channels / gate.groups, packs = channels / n;
  for (std::int64_t place = blockIdx.x; place < u.length * gate.groups; place += gridDim.x) {
    const std::int64_t t = quotient(place, gate.groups), g = place - t * gate.groups;  // neighbours share lines of memory
    float sum = 0;
    for (std::int64_t i = threadIdx.x; i < u.sequences * packs; i += block_threads) {
      const std::int64_t b = quotient(i, packs), c = g * channels + (i - b * packs) * n;
      float x[n], open[n], d[n];
      load(row<T>(u, b, t) + c, x);
      load(row<T>(opened, b, t) + c, open);
      load(row<T>(dout, b, t) + c, d);
#pragma unroll
      for (int k = 0; k < n; ++k) {
        open[k] *= d[k];
        x[k] *= d[k];
        sum += x[k];
      }
      store(open, row<T>(du, b, t) + c);
      store(x, row<T>(dz, b, t) + c);
    }
    sum = across_block(sum, Sum{});
    if (threadIdx.x == 0) static_cast<float*>(gate.bias)[g * gate.bias_stride + t] += sum;
  }
}

template <class T>
constexpr int pack = pack_of<T>;

template <class T>
bool packed(const Gate& gate, std::initializer_list<Sequences> all) {
  bool yes = all.begin()->channels / gate.groups % pack<T> == 0;
  for (const Sequences& s : all) yes = yes && in_packs(s, sizeof(T), pack<T>);
  return yes;
}

}  // namespace

void gate(cudaStream_t stream, DType type, const Gate& gate, const Sequences& u, const Sequences& z,
          const Sequences& out) {
  const std::int64_t rows = u.sequences * u.length;
  if (rows * u.channels == 0) return;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    const Open<T> body{gate, u.channels / gate.groups, u, z, out};
    if (packed<T>(gate, {u, z, out})) {
      launch(stream, grid(blocks_for(rows * u.channels / pack<T>, block_threads)), elements<pack<T>, Open<T>>,
             rows, u.channels, body);
    } else {
      launch(stream, grid(blocks_for(rows * u.channels, block_threads)), elements<1, Open<T>>, rows,
             u.channels, body);
    }
  });
}

void gate_backward(cudaStream_t stream, DType type, const Gate& gate, const Sequences& u,
                   const Sequences& opened, const Sequences& dout, const Sequences& du, const Sequences& dz) {
  if (u.sequences * u.channels == 0) return;
  const dim3 blocks = grid(std::min(most_blocks, u.length * gate.groups));
  with_type(type, [&](auto t) {
    using T = decltype(t);
    const auto kernel =
        packed<T>(gate, {u, opened, dout, du, dz}) ? open_backward<pack<T>, T> : open_backward<1, T>;
    launch(stream, blocks, kernel, gate, u, opened, dout, du, dz);
  });
}

}  // namespace smlp::cuda
