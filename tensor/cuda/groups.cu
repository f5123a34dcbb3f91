// Groups of channels, each brought together from all sequences, and back.
#include "tensor/cuda/sequences.cuh"

namespace smlp::cuda {

namespace {

// Row r of the call: position r % length of sequence r / length.
template <class T, bool packs>
struct Regroup {
  Sequences apart;
  std::int64_t group_channels;
  T* packed;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    const std::int64_t b = quotient(r, apart.length), t = r - b * apart.length;
    const std::int64_t g = quotient(c, group_channels), j = c - g * group_channels;
    T* here = row<T>(apart, b, t) + c;
    T* together = packed + ((g * apart.length + t) * apart.sequences + b) * group_channels + j;
    put(*reinterpret_cast<const Pack<T, n>*>(packs ? here : together), packs ? together : here);
  }
};

template <bool packs>
void regroup(cudaStream_t stream, DType type, std::int64_t groups, const Sequences& apart, void* packed) {
  const std::int64_t channels = apart.channels / groups;
  with_type(type, [&](auto t) {
    using T = decltype(t);
    constexpr int n = pack_of<T>;
    const bool packs_fit = channels % n == 0 && in_packs(apart, sizeof(T), n) &&
                           in_packs(Matrix{packed, 1, channels, channels}, sizeof(T), n);
    for_channels<n>(stream, apart, packs_fit, Regroup<T, packs>{apart, channels, static_cast<T*>(packed)});
  });
}

}  // namespace

void pack_groups(cudaStream_t stream, DType type, std::int64_t groups, const Sequences& from, void* packed) {
  regroup<true>(stream, type, groups, from, packed);
}

void unpack_groups(cudaStream_t stream, DType type, std::int64_t groups, const void* packed, const Sequences& to) {
  regroup<false>(stream, type, groups, to, const_cast<void*>(packed));
}

}  // namespace smlp::cuda
