// What all kernels share: the scalar types, loads and stores of several adjacent elements, the random
// numbers. Arithmetic is in f32 (f64 where a decision hangs on it), whatever the type in memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "tensor/cuda/kernels.h"
#include "tensor/matrix.h"

namespace smlp::cuda {

using Half = __half;
using Brain = __nv_bfloat16;

__device__ inline float widen(float value) { return value; }
__device__ inline float widen(Half value) { return __half2float(value); }
__device__ inline float widen(Brain value) { return __bfloat162float(value); }
__device__ inline float widen(double value) { return static_cast<float>(value); }

template <class T>
struct Narrow;
template <>
struct Narrow<float> {
  __device__ static float from(float value) { return value; }
};
template <>
struct Narrow<double> {
  __device__ static double from(float value) { return static_cast<double>(value); }
};
template <>
struct Narrow<Half> {
  __device__ static Half from(float value) { return __float2half_rn(value); }
};
template <>
struct Narrow<Brain> {
  __device__ static Brain from(float value) { return __float2bfloat16_rn(value); }
};
template <class T>
__device__ inline T narrow(float value) {
  return Narrow<T>::from(value);
}

#ifdef __CUDACC__
// To the device's memory. A word that is assigned may be taken apart into its elements, each with a store of its own.
__device__ inline void put_word(uint4 word, uint4* to) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :: "l"(to), "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w) : "memory");
}
__device__ inline void put_word(uint2 word, uint2* to) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" :: "l"(to), "r"(word.x), "r"(word.y) : "memory");
}
// One instruction each, within two units in the last place of f32.
__device__ inline float near_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float near_inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif  // else tests/cuda_emulation
constexpr float log2_e = 1.4426950409f;
__device__ inline float near_exp(float x) { return near_exp2(log2_e * x); }  // of no number far above 0

template <class T, int n>
struct alignas(sizeof(T) * n) Pack {
  T value[n];
};

template <class T, int n>
__device__ inline void widen(const Pack<T, n>& pack, float (&to)[n]) {
  if constexpr (std::is_same_v<T, Brain> && n % 2 == 0) {  // by its type the upper one of two takes two instructions
    std::uint32_t words[n / 2];
    memcpy(words, &pack, sizeof(pack));
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const std::uint32_t bits = i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xFFFF0000u;
      to[i] = __int_as_float(static_cast<int>(bits));
    }
  } else {
#pragma unroll
    for (int i = 0; i < n; ++i) to[i] = widen(pack.value[i]);
  }
}
template <int n, class T>
__device__ inline Pack<T, n> take(const T* from) {
  return *reinterpret_cast<const Pack<T, n>*>(from);
}
template <int n, class T>
__device__ inline void load(const T* from, float (&to)[n]) {
  widen(take<n>(from), to);
}

template <class Word, class T, int n>
__device__ inline void put_as(const Pack<T, n>& pack, T* to) {
  constexpr int count = static_cast<int>(sizeof(pack) / sizeof(Word));
  Word words[count];
  memcpy(words, &pack, sizeof(pack));
#pragma unroll
  for (int i = 0; i < count; ++i) put_word(words[i], reinterpret_cast<Word*>(to) + i);
}
template <class T, int n>
__device__ inline void put(Pack<T, n> pack, T* to) {
  if constexpr (sizeof(pack) % sizeof(uint4) == 0) {
    put_as<uint4>(pack, to);
  } else if constexpr (sizeof(pack) % sizeof(uint2) == 0) {
    put_as<uint2>(pack, to);
  } else {
    *reinterpret_cast<Pack<T, n>*>(to) = pack;
  }
}

template <int n, class T>
__device__ inline void store(const float (&from)[n], T* to) {
  Pack<T, n> pack;
#pragma unroll
  for (int i = 0; i < n; ++i) pack.value[i] = narrow<T>(from[i]);
  put(pack, to);
}

// a / b, neither negative: a division of 64 bits takes as long as several loads.
__device__ inline std::int64_t quotient(std::int64_t a, std::int64_t b) {
  if ((a | b) >> 32 != 0) return a / b;
  return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
}

template <class T>
__device__ inline T* row(const Matrix& m, std::int64_t r) {
  return static_cast<T*>(m.data) + r * m.stride;
}

// Numbers of a type that is known at run time only, where few are read.
__device__ inline double number_at(const Numbers& numbers, std::int64_t i) {
  switch (numbers.type) {
    case DType::f64:
      return static_cast<const double*>(numbers.data)[i];
    case DType::f32:
      return static_cast<double>(static_cast<const float*>(numbers.data)[i]);
    case DType::f16:
      return static_cast<double>(widen(static_cast<const Half*>(numbers.data)[i]));
    default:
      return static_cast<double>(widen(static_cast<const Brain*>(numbers.data)[i]));
  }
}
__device__ inline void put_number(const Numbers& numbers, std::int64_t i, double value) {
  switch (numbers.type) {
    case DType::f64:
      static_cast<double*>(numbers.data)[i] = value;
      break;
    case DType::f32:
      static_cast<float*>(numbers.data)[i] = static_cast<float>(value);
      break;
    case DType::f16:
      static_cast<Half*>(numbers.data)[i] = narrow<Half>(static_cast<float>(value));
      break;
    default:
      static_cast<Brain*>(numbers.data)[i] = narrow<Brain>(static_cast<float>(value));
      break;
  }
}

// Unsigned numbers in the order of the f64 they stand for.
__device__ inline std::uint64_t ordered(double value) {
  const auto bits = static_cast<std::uint64_t>(__double_as_longlong(value + 0.0));  // -0 as 0
  return bits >> 63 ? ~bits : bits | std::uint64_t{1} << 63;
}

// Philox4x32-10 as core/random.h has it.
struct Words {
  std::uint32_t word[4];
};
__device__ inline Words philox_words(std::uint64_t key, std::uint64_t counter_low,
                                     std::uint64_t counter_high) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  auto c0 = static_cast<std::uint32_t>(counter_low), c1 = static_cast<std::uint32_t>(counter_low >> 32);
  auto c2 = static_cast<std::uint32_t>(counter_high), c3 = static_cast<std::uint32_t>(counter_high >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const std::uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace smlp::cuda
