// The gate of the spatial gating unit.
#include "tensor/cuda/activation.cuh"
#include "tensor/cuda/sequences.cuh"

namespace smlp::cuda {

namespace {

template <class T>
__device__ float bias_of(const Gate& gate, std::int64_t group, std::int64_t t) {
  return widen(static_cast<const T*>(gate.bias)[group * gate.bias_stride + t]);
}

// Row r of the call: position r % length of sequence r / length.
template <class T, Activation kind>
struct Open {
  Gate gate;
  std::int64_t group_channels;
  Sequences out;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    const std::int64_t b = quotient(r, out.length), t = r - b * out.length;
    const float bias = bias_of<T>(gate, quotient(c, group_channels), t);
    float u[n], z[n];
    load(row<T>(gate.u, b, t) + c, u);
    load(row<T>(gate.z, b, t) + c, z);
#pragma unroll
    for (int i = 0; i < n; ++i) z[i] = activated<kind>(u[i]).value * (z[i] + bias);
    store(z, row<T>(out, b, t) + c);
  }
};

// One team for each position and group: the sum over sequences and channels has one writer.
template <int team, int n, class T, Activation kind>
__global__ void __launch_bounds__(block_threads) open_backward(Gate gate, GateBackward back) {
  const Sequences& u = gate.u;
  const std::int64_t channels = u.channels / gate.groups, packs = channels / n;
  constexpr std::int64_t teams = block_threads / team;
  for (std::int64_t place = team_number<team>(); place < u.length * gate.groups; place += gridDim.x * teams) {
    // Groups first: blocks beside each other share lines of memory.
    const std::int64_t t = quotient(place, gate.groups), g = place - t * gate.groups;
    const float bias = bias_of<T>(gate, g, t);
    float sum = 0;
    for (std::int64_t i = threadIdx.x % team; i < u.sequences * packs; i += team) {
      const std::int64_t b = quotient(i, packs), c = g * channels + (i - b * packs) * n;
      float x[n], z[n], d[n];
      load(row<T>(u, b, t) + c, x);
      load(row<T>(gate.z, b, t) + c, z);
      load(row<T>(back.dout, b, t) + c, d);
#pragma unroll
      for (int k = 0; k < n; ++k) {
        const Point at = activated<kind>(x[k]);
        z[k] = d[k] * (z[k] + bias) * at.slope;
        d[k] *= at.value;
        sum += d[k];
      }
      store(z, row<T>(back.du, b, t) + c);
      store(d, row<T>(back.dz, b, t) + c);
    }
    sum = across_team<team>(sum, Sum{});
    if (threadIdx.x % team == 0) back.dbias[g * back.dbias_stride + t] += sum;
  }
}

template <class T>
constexpr int pack = pack_of<T>;

template <class T>
bool packed(const Gate& gate, std::initializer_list<Sequences> others) {
  bool yes = gate.u.channels / gate.groups % pack<T> == 0;
  for (const Sequences& s : {gate.u, gate.z}) yes = yes && in_packs(s, sizeof(T), pack<T>);
  for (const Sequences& s : others) yes = yes && in_packs(s, sizeof(T), pack<T>);
  return yes;
}

}  // namespace

void gate(cudaStream_t stream, DType type, const Gate& gate, const Sequences& out) {
  const std::int64_t group_channels = out.channels / gate.groups;
  with_type_and_kind(type, gate.activation, [&](auto t, auto kind) {
    using T = decltype(t);
    for_channels<pack<T>>(stream, out, packed<T>(gate, {out}), Open<T, decltype(kind)::value>{gate, group_channels, out});
  });
}

void gate_backward(cudaStream_t stream, DType type, const Gate& gate, const GateBackward& b) {
  const Sequences& u = gate.u;
  if (u.sequences * u.channels == 0) return;
  const std::int64_t places = u.length * gate.groups, numbers = u.sequences * u.channels / gate.groups;
  with_type_and_kind(type, gate.activation, [&](auto t, auto kind) {
    using T = decltype(t);
    constexpr Activation activation = decltype(kind)::value;
    const auto start = [&](auto team) {
      constexpr int threads = decltype(team)::value;
      const auto kernel = packed<T>(gate, {b.dout, b.du, b.dz}) ? open_backward<threads, pack<T>, T, activation>
                                                                : open_backward<threads, 1, T, activation>;
      launch(stream, grid(blocks_for(places, block_threads / threads)), kernel, gate, b);
    };
    // A warp where a block would have little for each of its threads.
    numbers < 2 * block_threads * pack<T> ? start(std::integral_constant<int, 32>{})
                                          : start(std::integral_constant<int, block_threads>{});
  });
}

}  // namespace smlp::cuda
