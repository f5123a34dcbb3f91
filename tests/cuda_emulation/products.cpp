// In place of cuBLASLt: plain loops with f32 sums; what may come in the same pass is left to the own kernel
// for that.
#include "tensor/cuda/products.h"

#include <vector>

#include "core/error.h"
#include "tensor/cuda/numbers.cuh"

namespace smlp::cuda {

class Products::Library {
 public:
  cudaStream_t stream;
};

Products::Products(cudaStream_t stream, bool) : library_(new Library{stream}) {}
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

void run_one(const Product& p) {
  auto a = p.transpose_a ? transposed(widened(p.a, p.type, p.k, p.m, p.a_stride), p.k, p.m)
                         : widened(p.a, p.type, p.m, p.k, p.a_stride);
  auto b = p.transpose_b ? transposed(widened(p.b, p.type, p.n, p.k, p.b_stride), p.n, p.k)
                         : widened(p.b, p.type, p.k, p.n, p.b_stride);
  const Numbers out{p.out.data, p.out_type};
  std::vector<float> sums(static_cast<std::size_t>(p.n));
  for (std::int64_t i = 0; i < p.m; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (std::int64_t k = 0; k < p.k; ++k) {
      const float factor = a[static_cast<std::size_t>(i * p.k + k)];
      const float* from = b.data() + k * p.n;
      for (std::int64_t j = 0; j < p.n; ++j) sums[static_cast<std::size_t>(j)] += factor * from[j];
    }
    for (std::int64_t j = 0; j < p.n; ++j) {
      float x = sums[static_cast<std::size_t>(j)];
      if (p.accumulate) x += static_cast<float>(number_at(out, i * p.out.stride + j));
      put_number(out, i * p.out.stride + j, static_cast<double>(x));
    }
  }
}

}  // namespace

void Products::run(const Product& p) {
  const bool taken = emulation::enqueue(library_->stream, [p] {
    for (std::int64_t i = 0; i < p.batch; ++i) {
      Product one = p;
      one.a = after(p.a, i * p.a_apart, p.type);
      one.b = after(p.b, i * p.b_apart, p.type);
      one.out.data = after(p.out.data, i * p.out_apart, p.out_type);
      run_one(one);
    }
  });
  if (!taken) throw Error(ExitCode::fault, "a product was handed to a stream whose capture has failed");
  const bool plain = !p.bias && !p.residual.data && !p.gelu;
  if (!plain) finish(library_->stream, p.type, p.bias, p.out_type, p.out, p.residual, p.gelu, p.pre_activation);
}

}  // namespace smlp::cuda
