// Products and the causal token mixing, against plain loops in f64.
#include <cmath>
#include <numeric>

#include "tests/tensor/verb_case.h"

namespace smlp::test {
namespace {

class ProductsVerbs : public Verbs {};
INSTANTIATE_TEST_SUITE_P(On, ProductsVerbs, testing::ValuesIn(verb_cases()), case_name);

double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

// op(a) · op(b) of row-major values.
std::vector<double> product(const std::vector<double>& a, bool transpose_a, const std::vector<double>& b, bool transpose_b,
                            std::int64_t m, std::int64_t n, std::int64_t k) {
  std::vector<double> out(static_cast<std::size_t>(m * n), 0);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t p = 0; p < k; ++p) {
      const double x = a[static_cast<std::size_t>(transpose_a ? p * m + i : i * k + p)];
      for (std::int64_t j = 0; j < n; ++j) {
        out[static_cast<std::size_t>(i * n + j)] += x * b[static_cast<std::size_t>(transpose_b ? j * k + p : p * n + j)];
      }
    }
  }
  return out;
}

struct Sizes {
  std::int64_t m, n, k, gap;
};
const std::vector<Sizes> product_sizes = {{1, 1, 1, 0},   {1, 5, 3, 0},    {7, 1, 9, 2},     {13, 17, 19, 0},  {64, 64, 64, 0},
                                          {65, 70, 33, 5}, {100, 31, 260, 1}, {31, 515, 20, 0}, {0, 4, 3, 0},     {3, 4, 0, 0},
                                          {129, 96, 400, 3}};

TEST_P(ProductsVerbs, MultipliesInEveryOrientation) {
  for (const auto& [m, n, k, gap] : product_sizes) {
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        const double scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(k, 1)));
        Field a = values(ta ? Shape{k, m} : Shape{m, k}, 1, 1, gap), b = values(tb ? Shape{n, k} : Shape{k, n}, 2, scale, gap);
        const Values sum = product(a.get(), ta, b.get(), tb, m, n, k);
        Field out = values({m, n}, 3, 1, gap);
        b_.matmul({.a = a.view(), .b = b.view(), .out = out.view(), .transpose_a = ta, .transpose_b = tb});
        check("matmul", out, sum);

        Field added({m, n}, wide(), gap);
        added.randomize(4);
        Values wanted = added.get();
        for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += sum[i];
        b_.matmul({.a = a.view(), .b = b.view(), .out = added.view(), .transpose_a = ta, .transpose_b = tb, .accumulate = true});
        check("accumulating matmul", added, wanted, true);

        wanted = out.get();
        for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += sum[i];
        b_.matmul({.a = a.view(), .b = b.view(), .out = out.view(), .transpose_a = ta, .transpose_b = tb, .accumulate = true});
        check("matmul that accumulates in the values' type", out, wanted);
      }
    }
  }
}

TEST_P(ProductsVerbs, FinishesProductsWithBiasResidualAndActivation) {
  for (const auto& [m, n, k, gap] : product_sizes) {
    const double scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(k, 1)));
    Field a = values({m, k}, 1, 1, gap), b = values({n, k}, 2, scale, gap), bias = values({n}, 3), residual = values({m, n}, 4, 1, gap);
    const Values sum = product(a.get(), false, b.get(), true, m, n, k), offsets = bias.get(), rest = residual.get();
    for (int parts = 0; parts < 8; ++parts) {
      Field out = values({m, n}, 5, 1, gap), before = values({m, n}, 6, 1, gap + 1);
      Matmul call{.a = a.view(), .b = b.view(), .out = out.view(), .transpose_b = true};
      Values wanted = sum;
      if (parts & 1) {
        call.bias = bias.view();
        for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += offsets[i % static_cast<std::size_t>(n)];
      }
      if (parts & 2) {
        call.residual = residual.view();
        for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += rest[i];
      }
      if (parts & 4) {
        call.activation = Activation::gelu_tanh;
        call.pre_activation = before.view();
        b_.matmul(call);
        check("pre-activation", before, wanted);
        for (auto& value : wanted) value = gelu_tanh(value);
        check("activated", out, wanted);
        call.pre_activation = {};
        out.fill(7);
      }
      b_.matmul(call);
      check("matmul with an epilogue", out, wanted);
    }
  }
}

TEST_P(ProductsVerbs, GivesTheSameBitsAgainAndAtAnyAlignment) {
  const std::int64_t m = 67, n = 130, k = 190;
  for (const bool ta : {false, true}) {
    Values first;
    for (const std::int64_t shift : {0, 1, 5, 0}) {
      Field a(ta ? Shape{k, m} : Shape{m, k}, type(), 3, shift), b({k, n}, type(), 1, shift), out({m, n}, type(), 2, shift);
      a.randomize(1);
      b.randomize(2);
      b_.matmul({.a = a.view(), .b = b.view(), .out = out.view(), .transpose_a = ta});
      if (first.empty()) first = out.get();
      expect_close("the same product", out.get(), first, 0);
    }
  }
}

TEST_P(ProductsVerbs, MultipliesExpertByExpert) {
  const std::vector<std::int64_t> rows = {3, 0, 5, 1};
  const std::int64_t experts = 4, total = 9, n = 6, k = 10;
  Field a = values({total, k}, 1, 1, 2), b = values({experts, n, k}, 2), bias = values({experts, n}, 3), out({total, n}, type(), 1);
  Field before({total, n}, type()), residual = values({total, n}, 5);
  b_.matmul_grouped({.a = a.view(), .b = b.view(), .out = out.view(), .transpose_b = true, .bias = bias.view(), .residual = residual.view(),
                     .activation = Activation::gelu_tanh, .pre_activation = before.view()}, rows);
  Field gradient({experts, k, n}, wide());
  gradient.fill(3);
  b_.matmul_grouped({.a = a.view(), .b = out.view(), .out = gradient.view(), .transpose_a = true, .accumulate = true}, rows);
  const Values x = a.get(), w = b.get(), offsets = bias.get(), y = out.get(), rest = residual.get();
  Values wanted_before, wanted_gradient(static_cast<std::size_t>(experts * k * n), 3);
  std::size_t row = 0;
  for (std::size_t e = 0; e < rows.size(); ++e) {
    for (std::int64_t i = 0; i < rows[e]; ++i, ++row) {
      for (std::size_t j = 0; j < 6; ++j) {
        double sum = offsets[e * 6 + j] + rest[row * 6 + j];
        for (std::size_t p = 0; p < 10; ++p) {
          sum += x[row * 10 + p] * w[(e * 6 + j) * 10 + p];
          wanted_gradient[(e * 10 + p) * 6 + j] += x[row * 10 + p] * y[row * 6 + j];
        }
        wanted_before.push_back(sum);
      }
    }
  }
  Values wanted = wanted_before;
  for (auto& value : wanted) value = gelu_tanh(value);
  check("grouped pre-activation", before, wanted_before);
  check("grouped product", out, wanted);
  check("grouped weight gradient", gradient, wanted_gradient, true);
}

// weight [groups, room, room], of which the first `length` rows and columns count.
struct Mixing {
  std::int64_t groups, sequences, length, room, channels;  // channels of all groups
};

void mix(Verbs*, Backend& b, const Mixing& s, DType type, DType wide, double tolerance, double wide_tolerance) {
  const auto g_of = [&](std::int64_t c) { return c / (s.channels / s.groups); };
  Field weight({s.groups, s.room, s.room}, type, 1), v({s.sequences, s.length, s.channels}, type, 2), out(v.shape(), type, 1),
      dout(v.shape(), type, 3), dv(v.shape(), type, 1), dweight(weight.shape(), wide, 2);
  weight.randomize(1, 1 / std::sqrt(static_cast<double>(s.length)));
  v.randomize(2);
  dout.randomize(3, 1 / std::sqrt(static_cast<double>(s.channels)));
  dweight.randomize(4);
  std::vector<double> w = weight.get();
  for (std::int64_t g = 0; g < s.groups; ++g) {
    for (std::int64_t t = 0; t < s.room; ++t) {
      for (std::int64_t u = t + 1; u < s.room; ++u) w[static_cast<std::size_t>((g * s.room + t) * s.room + u)] = std::nan("");
    }
  }
  weight.set(w);
  const std::vector<double> x = v.get(), d = dout.get();
  std::vector<double> wanted(x.size(), 0), wanted_dv(x.size(), 0), wanted_dw = dweight.get();
  for (std::int64_t q = 0; q < s.sequences; ++q) {
    for (std::int64_t t = 0; t < s.length; ++t) {
      for (std::int64_t u = 0; u <= t; ++u) {
        for (std::int64_t c = 0; c < s.channels; ++c) {
          const auto at = static_cast<std::size_t>((q * s.length + t) * s.channels + c), from = static_cast<std::size_t>((q * s.length + u) * s.channels + c);
          const auto place = static_cast<std::size_t>((g_of(c) * s.room + t) * s.room + u);
          wanted[at] += w[place] * x[from];
          wanted_dv[from] += w[place] * d[at];
          wanted_dw[place] += d[at] * x[from];
        }
      }
    }
  }
  b.spatial({.weight = weight.view(), .v = v.view(), .out = out.view()});
  expect_close("spatial", out.get(), wanted, tolerance);
  b.spatial_backward_input({.weight = weight.view(), .v = dv.view(), .out = dout.view()});
  expect_close("spatial_backward_input", dv.get(), wanted_dv, tolerance);
  b.spatial_backward_weight({.weight = dweight.view(), .v = v.view(), .out = dout.view()});
  expect_close("spatial_backward_weight", dweight.get(), wanted_dw, wide_tolerance);
  EXPECT_TRUE(out.guards_intact() && dv.guards_intact() && dweight.guards_intact());
}

TEST_P(ProductsVerbs, MixesTokensOfTheLowerTriangle) {
  for (const auto& s : {Mixing{1, 1, 1, 1, 1}, Mixing{1, 2, 37, 37, 5}, Mixing{2, 3, 20, 33, 12}, Mixing{1, 2, 130, 130, 33},
                        Mixing{1, 1, 300, 310, 20}, Mixing{3, 0, 4, 4, 6}}) {
    SCOPED_TRACE(testing::Message() << "length " << s.length << " channels " << s.channels);
    mix(this, b_, s, type(), wide(), tolerance(), wide_tolerance());
  }
}

TEST_P(ProductsVerbs, MixesViewsThatAreColumnsOfWiderRows) {
  // v and out as halves of wider rows, as the gate of a block sees them.
  Field weight({1, 9, 9}, type()), wide_rows({2 * 9, 14}, type()), out({2 * 9, 20}, type());
  weight.randomize(1);
  wide_rows.randomize(2);
  const Values before = out.get(), w = weight.get(), x = wide_rows.get();
  out.fill(5);
  const auto sequences = [](TensorView rows) {
    rows.stride = {9 * rows.stride[0], rows.stride[0], 1, 0};
    rows.shape = {2, 9, rows.shape[1]};
    return rows;
  };
  b_.spatial({.weight = weight.view(), .v = sequences(wide_rows.view().column_range(7, 6)), .out = sequences(out.view().column_range(3, 6))});
  Values wanted(before.size(), 5);
  for (std::size_t q = 0; q < 2; ++q) {
    for (std::size_t t = 0; t < 9; ++t) {
      for (std::size_t c = 0; c < 6; ++c) {
        double sum = 0;
        for (std::size_t u = 0; u <= t; ++u) sum += w[t * 9 + u] * x[(q * 9 + u) * 14 + 7 + c];
        wanted[(q * 9 + t) * 20 + 3 + c] = sum;
      }
    }
  }
  check("spatial of columns", out, wanted);
}

TEST_P(ProductsVerbs, RefusesShapesAndTypesThatDoNotFit) {
  Field a = values({3, 4}, 1), b = values({5, 6}, 2), out = values({3, 6}, 3);
  EXPECT_THROW(b_.matmul({.a = a.view(), .b = b.view(), .out = out.view()}), Error);
  TensorView other = a.view();
  other.dtype = GetParam().refused;
  EXPECT_THROW(b_.matmul({.a = other, .b = other, .out = other, .transpose_b = true}), Error);
  EXPECT_THROW(b_.add(other, other, other), Error);
  EXPECT_THROW(b_.add(a.view(), b.view(), out.view()), Error);
}

}  // namespace
}  // namespace smlp::test
