#include "tensor/cpu/plain_products.h"

#include <algorithm>
#include <vector>

namespace smlp::cpu {

namespace {

constexpr std::int64_t block_rows = 64, block_depth = 128, block_width = 512;

// A block of op(x), row-major: copied where it lies transposed, else where it is.
template <class T>
struct Block {
  const T* data;
  std::int64_t stride;
};

template <class T>
Block<T> block_of(const void* data, std::int64_t stride, bool transposed, std::int64_t row, std::int64_t rows,
                  std::int64_t column, std::int64_t columns, std::vector<T>& copy) {
  const T* const x = static_cast<const T*>(data);
  if (!transposed) return {x + row * stride + column, stride};
  copy.resize(static_cast<std::size_t>(rows * columns));
  for (std::int64_t c = 0; c < columns; ++c) {
    const T* const from = x + (column + c) * stride + row;
    for (std::int64_t r = 0; r < rows; ++r) copy[static_cast<std::size_t>(r * columns + c)] = from[r];
  }
  return {copy.data(), columns};
}

template <class T>
void add_block(const Block<T>& a, const Block<T>& b, std::int64_t rows, std::int64_t depth, std::int64_t width, T* sums) {
  for (std::int64_t i = 0; i < rows; ++i) {
    T* const sum = sums + i * block_width;
    for (std::int64_t k = 0; k < depth; ++k) {
      const T factor = a.data[i * a.stride + k];
      const T* const from = b.data + k * b.stride;
      for (std::int64_t j = 0; j < width; ++j) sum[j] += factor * from[j];
    }
  }
}

template <class T>
void multiply(const Product& p, const Matrix& out) {
#pragma omp parallel for schedule(static)
  for (std::int64_t row = 0; row < p.m; row += block_rows) {
    thread_local std::vector<T> a_copy, b_copy, sums;
    sums.resize(static_cast<std::size_t>(block_rows * block_width));
    const std::int64_t rows = std::min(block_rows, p.m - row);
    for (std::int64_t column = 0; column < p.n; column += block_width) {
      const std::int64_t width = std::min(block_width, p.n - column);
      std::fill(sums.begin(), sums.end(), T(0));
      for (std::int64_t k = 0; k < p.k; k += block_depth) {
        const std::int64_t depth = std::min(block_depth, p.k - k);
        const auto a = block_of<T>(p.a, p.a_stride, p.transpose_a, row, rows, k, depth, a_copy);
        const auto b = block_of<T>(p.b, p.b_stride, p.transpose_b, k, depth, column, width, b_copy);
        add_block(a, b, rows, depth, width, sums.data());
      }
      for (std::int64_t i = 0; i < rows; ++i) {
        T* const to = static_cast<T*>(out.data) + (row + i) * out.stride + column;
        const T* const sum = sums.data() + i * block_width;
        for (std::int64_t j = 0; j < width; ++j) to[j] = p.accumulate ? to[j] + sum[j] : sum[j];
      }
    }
  }
}

}  // namespace

void multiply_plainly(const Product& p, const Matrix& out) {
  if (p.type == DType::f64) return multiply<double>(p, out);
  multiply<float>(p, out);
}

}  // namespace smlp::cpu
