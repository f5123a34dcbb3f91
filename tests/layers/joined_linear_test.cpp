// Maps of one input that are one product where the store leaves no gap between them, and several where it does.
#include <gtest/gtest.h>

#include <cmath>

#include "layers/joined_linear.h"
#include "tensor/counting.h"
#include "tests/layers/bench.h"

namespace smlp {
namespace {

using test::Bench;

const std::vector<std::string> names = {"query", "key", "value"};

class AsLayer final : public Layer {
 public:
  explicit AsLayer(JoinedLinear& maps, std::int64_t width) : maps_(maps), width_(width) {}
  // The sum of the maps' outputs, so that it is as wide as the input.
  void forward(Context& c, TensorView x, TensorView y) override {
    x_ = x;
    const TensorView all = c.scratch.take({x.rows(), 3 * width_}, x.dtype);
    maps_.forward(c, x, all);
    c.backend.add(all.column_range(0, width_), all.column_range(width_, width_), y);
    c.backend.add(y, all.column_range(2 * width_, width_), y);
  }
  void backward(Context& c, TensorView dy, TensorView dx) override {
    const TensorView all = c.scratch.take({dy.rows(), 3 * width_}, dy.dtype);
    for (std::int64_t map = 0; map < 3; ++map) c.backend.copy(dy, all.column_range(map * width_, width_));
    maps_.add_gradients(c, x_, all);
    maps_.backward_input(c, all, dx);
  }

 private:
  JoinedLinear& maps_;
  std::int64_t width_;
  TensorView x_;
};

TEST(JoinedLinear, GradientsMatchDifferencesWithGapsInTheStore) {
  Bench b;
  JoinedLinear maps(b.store, names, 6, 6);
  AsLayer layer(maps, 6);
  b.seal();
  test::check_gradients(b, layer, 6);
}

TEST(JoinedLinear, ComputesWhatItsMapsDoApartWithGapsAndWithout) {
  for (const std::int64_t width : {6, 8, 64}) {  // gaps behind all, behind biases alone, none
    Bench b;
    JoinedLinear joined(b.store, names, width, width);
    b.seal();
    Bench apart;
    std::vector<Linear> maps;
    for (const auto& name : names) maps.emplace_back(apart.store, name, width, width);
    apart.seal();
    const auto x_values = test::random_values(6 * width, 1), dy_values = test::random_values(18 * width, 2);
    struct Seen {
      std::vector<double> y, dx, gradients;
    };
    const auto seen = [&](Bench& bench, const auto& forward_and_backward) {
      const TensorView x = bench.memory.take({6, width}, DType::f64), dx = bench.memory.take({6, width}, DType::f64);
      const TensorView y = bench.memory.take({6, 3 * width}, DType::f64), dy = bench.memory.take(y.shape, DType::f64);
      test::write(*bench.backend, x, x_values);
      test::write(*bench.backend, dy, dy_values);
      forward_and_backward(bench.c, x, y, dy, dx);
      Seen result{test::read(*bench.backend, y), test::read(*bench.backend, dx), {}};
      for (const auto& parameter : bench.store.parameters()) {
        const auto part = test::read(*bench.backend, parameter.grad);
        result.gradients.insert(result.gradients.end(), part.begin(), part.end());
      }
      return result;
    };
    const auto one = seen(b, [&](Context& c, TensorView x, TensorView y, TensorView dy, TensorView dx) {
      joined.forward(c, x, y);
      joined.add_gradients(c, x, dy);
      joined.backward_input(c, dy, dx);
    });
    const auto many = seen(apart, [&](Context& c, TensorView x, TensorView y, TensorView dy, TensorView dx) {
      c.backend.fill(dx, 0);
      for (std::int64_t i = 0; i < 3; ++i) {
        const auto columns = [&](const TensorView& all) { return all.column_range(i * width, width); };
        const auto& map = maps[static_cast<std::size_t>(i)];
        map.forward(c, x, columns(y));
        map.add_gradients(c, x, columns(dy));
        const TensorView part = apart.memory.take(dx.shape, DType::f64);
        map.backward_input(c, columns(dy), part);
        c.backend.add(dx, part, dx);
      }
    });
    const auto near = [&](const std::vector<double>& ours, const std::vector<double>& wanted) {
      ASSERT_EQ(ours.size(), wanted.size());
      for (std::size_t i = 0; i < ours.size(); ++i) ASSERT_NEAR(ours[i], wanted[i], 1e-12 * (1 + std::abs(wanted[i]))) << width;
    };
    near(one.y, many.y);
    near(one.dx, many.dx);
    near(one.gradients, many.gradients);
  }
}

class CountingProducts final : public CountingBackend {
 public:
  void matmul(const Matmul& m) override {
    ++products;
    CountingBackend::matmul(m);
  }
  int products = 0;
};

TEST(JoinedLinear, IsOneProductWhereNothingLiesBetweenItsMaps) {
  for (const auto& [width, products] : {std::pair<std::int64_t, int>{64, 3}, {6, 9}}) {
    CountingProducts backend;
    ParameterStore store;
    JoinedLinear maps(store, names, width, width);
    store.seal(backend, DType::bf16, 1, false);
    Arena scratch(backend);
    Context c{.backend = backend, .scratch = scratch, .sequences = 1, .length = 4};
    const TensorView x = scratch.take({4, width}, DType::bf16), all = scratch.take({4, 3 * width}, DType::bf16);
    maps.forward(c, x, all);
    maps.add_gradients(c, x, all);
    maps.backward_input(c, all, x);
    EXPECT_EQ(backend.products, products) << "forward, weights' gradients, input's gradient";
  }
}

}  // namespace
}  // namespace smlp
