// How the host starts kernels: grids, types, and functors over elements.
#pragma once

#include <algorithm>
#include <array>

#include "core/error.h"
#include "tensor/cuda/block.cuh"
#include "tensor/cuda/check.h"

namespace smlp::cuda {

constexpr std::int64_t most_blocks = 65535;  // kernels walk on where there is more to do

inline std::int64_t blocks_for(std::int64_t work, std::int64_t each) {
  return std::min(most_blocks, (work + each - 1) / each);
}
inline dim3 grid(std::int64_t x, std::int64_t y = 1) {
  return dim3{static_cast<unsigned>(x), static_cast<unsigned>(y), 1u};
}

template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, dim3 blocks, void (*kernel)(Parameters...), const Arguments&... arguments) {
  if (blocks.x == 0 || blocks.y == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3{block_threads, 1u, 1u};
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...),
        "a kernel could not be started");
}

// body(a value of the type)
template <class Body>
void with_type(DType type, Body body) {
  switch (type) {
    case DType::f32:
      return body(float{});
    case DType::bf16:
      return body(Brain{});
    case DType::f16:
      return body(Half{});
    default:
      throw Error(ExitCode::fault, std::string("the CUDA kernels do not compute in ") + name_of(type));
  }
}

// The same, or f64: where nothing is computed, or sums are f64.
template <class Body>
void with_number(DType type, Body body) {
  if (type == DType::f64) return body(double{});
  with_type(type, body);
}

// Can all rows be read and written n elements of `size` bytes at a time?
inline bool in_packs(const Matrix& m, std::int64_t size, std::int64_t n) {
  return m.data == nullptr ||
         (reinterpret_cast<std::uintptr_t>(m.data) % static_cast<std::uintptr_t>(size * n) == 0 &&
          m.width % n == 0 && (m.rows == 1 || m.stride % n == 0));
}
template <class T>
constexpr int pack_of = 16 / static_cast<int>(sizeof(T));

// body.at<n>(r, c) for the elements (r, c) ... (r, c + n - 1), where n adjacent ones can be had at once; body.prepare()
// first, where there is one, by all threads of each block.
template <int n, class Body>
__global__ void __launch_bounds__(block_threads) elements(std::int64_t rows, std::int64_t width, Body body) {
  if constexpr (requires { body.prepare(); }) body.prepare();
  const std::int64_t packs = width / n, total = rows * packs;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total;
       i += step) {
    const std::int64_t r = rows == 1 ? 0 : quotient(i, packs);
    body.template at<n>(r, (i - r * packs) * n);
  }
}

// `flat`: the body asks of an element no more than where it lies in memory, so that rows may be joined.
template <int n, class Body, std::size_t count>
void for_elements(cudaStream_t stream, const std::array<Matrix, count>& matrices, std::int64_t size,
                  const Body& body, bool flat = true) {
  const Matrix& first = matrices[0];
  for (const Matrix& m : matrices) flat = flat && (m.stride == m.width || m.rows == 1);
  const std::int64_t rows = flat ? 1 : first.rows, width = flat ? first.rows * first.width : first.width;
  bool packed = n > 1;
  for (const Matrix& m : matrices) packed = packed && in_packs({m.data, rows, width, m.stride}, size, n);
  if (rows * width == 0) return;
  if (packed) {
    launch(stream, grid(blocks_for(rows * width / n, block_threads)), elements<n, Body>, rows, width, body);
  } else {
    launch(stream, grid(blocks_for(rows * width, block_threads)), elements<1, Body>, rows, width, body);
  }
}

}  // namespace smlp::cuda
