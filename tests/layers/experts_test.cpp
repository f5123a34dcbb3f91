// gMLP blocks as experts: with one expert they are the dense block; with several a token sees its own expert's alone.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "layers/gmlp_block.h"
#include "layers/gmlp_experts.h"
#include "tests/layers/bench.h"

namespace smlp {
namespace {

using test::Bench;
using Values = std::vector<double>;

constexpr GmlpSizes sizes{.width = 4, .hidden = 8, .context = 5, .heads = 2};

// Two sequences of five tokens; `experts` experts that got the rows of the given places, in this order.
struct Fixture {
  Fixture(std::int64_t experts, std::vector<std::int64_t> rows_of_expert, std::vector<std::int32_t> row_places)
      : layer(bench.store, "experts", sizes, Activation::gelu_tanh, bench.make_exchange(experts)),
        rows(std::move(rows_of_expert)),
        places(std::move(row_places)) {
    bench.c.mode = Mode::evaluation;
    bench.seal();
  }

  Values forward(const Values& x) {
    bench.begin();
    const Shape shape{static_cast<std::int64_t>(places.size()), sizes.width};
    const TensorView in = bench.memory.take(shape, DType::f64), out = bench.memory.take(shape, DType::f64);
    test::write(*bench.backend, in, x);
    layer.forward(bench.c, rows, places, in, out);
    return test::read(*bench.backend, out);
  }
  // Whether the output of row `row` differs between two answers.
  static bool differs(const Values& a, const Values& b, std::size_t row) {
    double most = 0;
    for (std::size_t c = 0; c < 4; ++c) most = std::max(most, std::abs(a[row * 4 + c] - b[row * 4 + c]));
    return most > 1e-6;
  }

  Bench bench{2, 5};
  GmlpExperts layer;
  std::vector<std::int64_t> rows;
  std::vector<std::int32_t> places;
};

TEST(GmlpExperts, OneExpertIsTheDenseBlock) {
  std::vector<std::int32_t> places(10);
  std::iota(places.begin(), places.end(), 0);
  Fixture one(1, {10}, places);
  Bench dense(2, 5);
  GmlpBlock block(dense.store, "block", sizes, Activation::gelu_tanh, 0);
  dense.c.mode = Mode::evaluation;
  dense.seal();
  for (auto& parameter : dense.store.parameters()) {
    const std::string of_expert = "experts" + parameter.name.substr(std::string("block").size());
    test::write(*dense.backend, parameter.value, test::read(*one.bench.backend, one.bench.store.find(of_expert).value));
  }
  const Values x = test::random_values(40, 3);
  const TensorView in = dense.memory.take({10, 4}, DType::f64), out = dense.memory.take({10, 4}, DType::f64);
  test::write(*dense.backend, in, x);
  block.forward(dense.c, in, out);
  const Values expected = test::read(*dense.backend, out), branch = one.forward(x);
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(branch[i] + x[i], expected[i], 1e-13);
}

TEST(GmlpExperts, ATokenSeesEarlierOnesOfItsSequenceAndExpertAlone) {
  // Expert 0: places 0, 2, 3 of the first sequence and 1 of the second; an empty slot; expert 1: the rest.
  Fixture f(2, {5, 6}, {0, 2, 3, 6, -1, 1, 4, 5, 7, 8, 9});
  const Values x = test::random_values(44, 3), before = f.forward(x);
  for (std::size_t moved = 0; moved < 11; ++moved) {
    Values changed = x;
    for (std::size_t c = 0; c < 4; ++c) changed[moved * 4 + c] += static_cast<double>(c) - 1;
    const Values after = f.forward(changed);
    for (std::size_t row = 0; row < 11; ++row) {
      const std::int32_t from = f.places[moved], to = f.places[row];
      const bool same_expert = (moved < 5) == (row < 5);
      const bool sees = from >= 0 && to >= 0 && same_expert && from / 5 == to / 5 && from <= to;
      EXPECT_EQ(Fixture::differs(before, after, row), sees) << "row " << row << " when row " << moved << " moves";
    }
  }
}

TEST(GmlpExperts, WeightsBelongToPlacesOfTheSequence) {
  Fixture f(1, {3}, {0, 2, 3});
  const Values x = test::random_values(12, 3), before = f.forward(x);
  Parameter& weight = f.bench.store.find("experts.spatial.weight");
  const Values stored = test::read(*f.bench.backend, weight.value);
  const auto present = [](std::size_t place) { return place == 0 || place == 2 || place == 3; };
  for (std::size_t t = 0; t < 5; ++t) {
    for (std::size_t s = 0; s <= t; ++s) {
      Values changed = stored;
      changed[t * 5 + s] += 1;  // of the first head
      test::write(*f.bench.backend, weight.value, changed);
      const Values after = f.forward(x);
      for (std::size_t row = 0; row < 3; ++row) {
        const bool counts = static_cast<std::size_t>(f.places[row]) == t && present(s);
        EXPECT_EQ(Fixture::differs(before, after, row), counts) << "W[" << t << "][" << s << "], row " << row;
      }
    }
  }
}

}  // namespace
}  // namespace smlp
