// Columns by index, and the softmax gate over slots, against plain loops in f64.
#include <cmath>
#include <numeric>

#include "tests/tensor/verb_case.h"

namespace smlp::test {
namespace {

class ColumnsVerbs : public Verbs {};
INSTANTIATE_TEST_SUITE_P(On, ColumnsVerbs, testing::ValuesIn(verb_cases()), case_name);

TEST_P(ColumnsVerbs, PermutesScalesAndDots) {
  const std::int64_t sequences = 3, length = 4;
  for (const std::int64_t columns : {1, 5, 40}) {
    for (const bool scaled : {false, true}) {
      const Shape shape{sequences, length, columns};
      Field in = values(shape, 1, 1, 2), out = values(shape, 2, 1, 1), back = values(shape, 3), scale = values({sequences, columns}, 4);
      Field index({sequences, columns}, DType::i32), dots({sequences, columns}, wide());
      Values places;
      for (std::int64_t b = 0; b < sequences; ++b) {  // another permutation for each
        for (std::int64_t c = 0; c < columns; ++c) places.push_back(static_cast<double>((3 * c + b + 1) % columns));
      }
      index.set(places);
      const Values x = in.get(), s = scale.get();
      Values gathered(x.size()), scattered(x.size()), wanted_dots(places.size(), 0);
      for (std::size_t row = 0; row < static_cast<std::size_t>(sequences * length); ++row) {
        const std::size_t n = static_cast<std::size_t>(columns), b = row / static_cast<std::size_t>(length);
        for (std::size_t c = 0; c < n; ++c) {
          const double factor = scaled ? s[b * n + c] : 1;
          const auto from = row * n + static_cast<std::size_t>(places[b * n + c]);
          gathered[row * n + c] = factor * x[from];
          scattered[from] = factor * x[row * n + c];
          wanted_dots[b * n + c] += x[row * n + c] * x[row * n + c];
        }
      }
      const TensorView none, factors = scaled ? scale.view() : none;
      b_.gather_columns(in.view(), index.view(), factors, out.view());
      check("gather_columns", out, gathered);
      b_.scatter_columns(in.view(), index.view(), factors, back.view());
      check("scatter_columns", back, scattered);
      b_.column_dots(in.view(), in.view(), dots.view());
      check("column_dots", dots, wanted_dots, true);
    }
  }
}

TEST_P(ColumnsVerbs, RefusesAnIndexBeyondTheColumns) {
  Field in = values({1, 2, 3}, 1), out = values({1, 2, 3}, 2), index({1, 3}, DType::i32);
  for (const double wrong : {3.0, -1.0}) {
    index.set({0, wrong, 1});
    EXPECT_THROW(finished([&] { b_.gather_columns(in.view(), index.view(), {}, out.view()); }), Error);
  }
}

TEST_P(ColumnsVerbs, GatesSlotsBySoftmax) {
  const std::vector<std::int64_t> rows = {2, 1, 3};
  Field scores({5, 3}, wide(), 0, 0), alpha({6}, wide()), dalpha({6}, wide()), dscores({5, 3}, wide(), 0, 0), slots({6}, DType::i32);
  scores.randomize(1, 3);
  dalpha.randomize(2);
  dscores.randomize(3);
  slots.set({4, 0, 2, -1, 1, 4});
  const Values s = scores.get(), d = dalpha.get(), token = slots.get();
  Values wanted(6, 0), wanted_dscores = dscores.get();
  for (std::size_t e = 0, slot = 0; e < 3; ++e) {
    for (std::int64_t i = 0; i < rows[e]; ++i, ++slot) {
      if (token[slot] < 0) continue;
      const std::size_t row = 3 * static_cast<std::size_t>(token[slot]);
      const double total = std::exp(s[row]) + std::exp(s[row + 1]) + std::exp(s[row + 2]);
      wanted[slot] = std::exp(s[row + e]) / total;
      for (std::size_t f = 0; f < 3; ++f) {
        wanted_dscores[row + f] += d[slot] * wanted[slot] * ((f == e ? 1 : 0) - std::exp(s[row + f]) / total);
      }
    }
  }
  b_.softmax_of_slots(scores.view(), slots.view(), rows, alpha.view());
  check("softmax_of_slots", alpha, wanted, true);
  b_.softmax_of_slots_backward(scores.view(), dalpha.view(), slots.view(), rows, dscores.view());
  check("softmax_of_slots_backward", dscores, wanted_dscores, true);
}

}  // namespace
}  // namespace smlp::test
