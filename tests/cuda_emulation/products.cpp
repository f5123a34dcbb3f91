// In place of cuBLASLt and cuBLAS: plain loops with f32 sums. What a product ends with is done here where the library
// would be asked, and left to the own kernels where it would not.
#include <cmath>
#include <vector>

#include "tensor/cuda/numbers.cuh"
#include "tensor/cuda/product_end.h"
#include "tests/cuda_emulation/emulator.h"

namespace smlp::emulation {
namespace {
std::int64_t multiplied = 0, ended = 0;
Refusals refused;
}  // namespace

std::int64_t products() { return multiplied; }
std::int64_t products_with_ends() { return ended; }
void refuse(const Refusals& refusals) { refused = refusals; }
}  // namespace smlp::emulation

namespace smlp::cuda {

class Products::Library {
 public:
  cudaStream_t stream;
  ProductEnds ends;
};

Products::Products(cudaStream_t stream, bool, ProductEnds ends) : library_(new Library{stream, ends}) {}
Products::~Products() = default;

namespace {

std::vector<float> widened(const void* data, DType type, std::int64_t rows, std::int64_t width,
                           std::int64_t stride) {
  std::vector<float> values(static_cast<std::size_t>(rows * width));
  const Numbers numbers{const_cast<void*>(data), type};
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < width; ++c)
      values[static_cast<std::size_t>(r * width + c)] =
          static_cast<float>(number_at(numbers, r * stride + c));
  }
  return values;
}

std::vector<float> transposed(const std::vector<float>& values, std::int64_t rows, std::int64_t width) {
  std::vector<float> result(values.size());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < width; ++c)
      result[static_cast<std::size_t>(c * rows + r)] = values[static_cast<std::size_t>(r * width + c)];
  }
  return result;
}

void* after(const void* data, std::int64_t elements, DType type) {
  return static_cast<char*>(const_cast<void*>(data)) + elements * size_of(type);
}

// 1 / (1 + exp(-2 u)) as the library has it: its tanh, an instruction of the device, is good to 11 bits.
double gelu_share(double x) {
  const double exact = std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
  return (1 + std::ldexp(std::round(std::ldexp(exact, 11)), -11)) / 2;
}
double gelu(double x) { return x * gelu_share(x); }
double gelu_slope(double x) {
  const double s = gelu_share(x);
  return s + x * s * (1 - s) * 1.5957691216057308 * (1 + 3 * 0.044715 * x * x);
}

// Element (r, c) of all rows, from the sum of its products.
double ended(const Product& p, std::int64_t r, std::int64_t c, double x) {
  const auto at = [&](const Matrix& m) { return Numbers{m.data, p.out_type}; };
  if (p.accumulate) x += number_at(at(p.out), r * p.out.stride + c);
  if (p.bias) x += number_at({const_cast<void*>(p.bias), p.type}, c);
  if (p.residual.data) x += number_at(at(p.residual), r * p.residual.stride + c);
  const std::int64_t kept = r * p.pre_activation.stride + c;
  if (p.gelu_gradient) return x * gelu_slope(number_at(at(p.pre_activation), kept));
  if (p.gelu && p.pre_activation.data) put_number(at(p.pre_activation), kept, x);
  return p.gelu ? gelu(x) : x;
}

void run_one(const Product& p) {
  auto a = p.transpose_a ? transposed(widened(p.a, p.type, p.k, p.m, p.a_stride), p.k, p.m)
                         : widened(p.a, p.type, p.m, p.k, p.a_stride);
  auto b = p.transpose_b ? transposed(widened(p.b, p.type, p.n, p.k, p.b_stride), p.n, p.k)
                         : widened(p.b, p.type, p.k, p.n, p.b_stride);
  const Numbers out{p.out.data, p.out_type};
  std::vector<float> sums(static_cast<std::size_t>(p.n));
  for (std::int64_t i = 0; i < p.m; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    float of_a = 0;
    for (std::int64_t k = 0; k < p.k; ++k) {
      const float factor = a[static_cast<std::size_t>(i * p.k + k)];
      of_a += factor;
      const float* from = b.data() + k * p.n;
      for (std::int64_t j = 0; j < p.n; ++j) sums[static_cast<std::size_t>(j)] += factor * from[j];
    }
    if (p.bias_gradient) p.scratch[i] = of_a;
    for (std::int64_t j = 0; j < p.n; ++j) {
      const double x = static_cast<double>(sums[static_cast<std::size_t>(j)]);
      put_number(out, i * p.out.stride + j, ended(p, i, j, x));
    }
  }
}

// The i-th of a batch, with what it ends with.
Product part(const Product& p, std::int64_t i) {
  Product one = one_of(p, i);
  const auto rows = [&](Matrix& m) {
    if (m.data) m.data = after(m.data, i * p.m * m.stride, p.out_type);
  };
  rows(one.residual);
  rows(one.pre_activation);
  if (p.bias) one.bias = after(p.bias, i * p.bias_apart, p.type);
  if (p.scratch) one.scratch = p.scratch + i * p.m;
  return one;
}

}  // namespace

void Products::run(const Product& p) {
  const cudaStream_t stream = library_->stream;
  const auto multiply = [stream](const Product& product) {
    ++emulation::multiplied;
    if (emulation::refused.products && plain(product)) {
      for (std::int64_t i = 0; i < product.batch; ++i) multiply_plainly(stream, one_of(product, i));
      return;
    }
    emulation::hand_over(stream, [product] {
      for (std::int64_t i = 0; i < product.batch; ++i) run_one(part(product, i));
    });
  };
  const auto start = [&multiply](const Product& product) {
    if (emulation::refused.ends) return false;
    ++emulation::ended;
    multiply(product);
    return true;
  };
  run_with_end(stream, p, library_->ends, start, multiply);
}

bool Products::run_grouped(const Product& p, std::span<const RowGroup> groups, const GroupTable& table) {
  if (!library_may_group(p, groups) || emulation::refused.groups) return false;
  ++emulation::multiplied;
  emulation::hand_over(library_->stream, [p, table, all = std::vector(groups.begin(), groups.end())] {
    for (std::size_t i = 0; i < all.size(); ++i) {
      Product one = alone(p);
      (p.transpose_a ? one.k : one.m) = all[i].rows;
      one.a = table.a[i];
      one.b = table.b[i];
      one.out.data = table.out[i];
      run_one(one);
    }
  });
  end(library_->stream, p, static_cast<std::int64_t>(groups.size()), table);
  return true;
}

}  // namespace smlp::cuda
