// The loops of a build without oneDNN, against sums in long double.
#include "tensor/cpu/plain_products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "core/random.h"

namespace smlp::cpu {
namespace {

using Case = std::tuple<DType, bool, bool, bool>;  // transposed a, transposed b, accumulated

class PlainProducts : public testing::TestWithParam<Case> {};

template <class T>
std::vector<T> numbers(std::int64_t count, std::uint64_t seed) {
  std::vector<T> values(static_cast<std::size_t>(count));
  const RandomStream random(seed);
  for (std::uint64_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(random.uniform(i) - 0.5);
  return values;
}

template <class T>
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, DType type, bool ta, bool tb, bool accumulate, double tolerance) {
  constexpr std::int64_t gap = 3;
  const std::int64_t a_stride = (ta ? m : k) + gap, b_stride = (tb ? k : n) + gap, stride = n + gap;
  const auto a = numbers<T>((ta ? k : m) * a_stride, 1), b = numbers<T>((tb ? n : k) * b_stride, 2);
  const auto before = numbers<T>(m * stride, 3);
  auto out = before;
  const auto at = [](const std::vector<T>& x, std::int64_t place) { return x[static_cast<std::size_t>(place)]; };
  const Product p{.m = m, .n = n, .k = k, .a = a.data(), .b = b.data(), .a_stride = a_stride, .b_stride = b_stride,
                  .transpose_a = ta, .transpose_b = tb, .accumulate = accumulate, .out = {out.data(), m, n, stride},
                  .type = type, .out_type = type};
  multiply_plainly(p, p.out);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < stride; ++j) {
      long double sum = accumulate || j >= n ? at(before, i * stride + j) : 0.0L;
      for (std::int64_t d = 0; d < k && j < n; ++d) {
        sum += static_cast<long double>(at(a, ta ? d * a_stride + i : i * a_stride + d)) *
               at(b, tb ? j * b_stride + d : d * b_stride + j);
      }
      ASSERT_NEAR(at(out, i * stride + j), static_cast<double>(sum), tolerance) << m << "x" << n << "x" << k << " at " << i << ", " << j;
    }
  }
}

TEST_P(PlainProducts, AreTheSumsOfTheirDefinition) {
  const auto [type, ta, tb, accumulate] = GetParam();
  const std::vector<std::vector<std::int64_t>> sizes = {{1, 1, 1}, {7, 5, 3}, {64, 512, 128}, {65, 513, 129}, {130, 40, 300}};
  for (const auto& size : sizes) {
    if (type == DType::f64) {
      multiply<double>(size[0], size[1], size[2], type, ta, tb, accumulate, 1e-13);
    } else {
      multiply<float>(size[0], size[1], size[2], type, ta, tb, accumulate, 2e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PlainProducts,
                         testing::Combine(testing::Values(DType::f32, DType::f64), testing::Bool(), testing::Bool(),
                                          testing::Bool()));

}  // namespace
}  // namespace smlp::cpu
