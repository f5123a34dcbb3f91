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
                                          {129, 96, 400, 3}, {24, 40, 16, 8}, {16, 12, 30, 0}};

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
    Field a = values({m, k}, 1, 1, gap), b = values({n, k}, 2, scale, gap), bias = values({n}, 3), residual = values({m, n}, 4, 1, gap + 8);
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
      const bool exact = shift == 0 || GetParam().backend != "cuda";  // its library chooses a kernel by alignment
      expect_close("the same product", out.get(), first, exact ? 0 : tolerance());
    }
  }
}

// cuBLASLt may leave out the last k % 64 terms where it splits such sums among blocks.
TEST_P(ProductsVerbs, AddsEveryTermOfALongSum) {
  struct Long {
    std::int64_t m, n, k;
  };
  for (const auto& [m, n, k] : {Long{1, 8, 11528}, Long{32, 32, 11528}, Long{1, 8, 57608}}) {
    for (const bool transpose_a : {false, true}) {
      Field a(transpose_a ? Shape{k, m} : Shape{m, k}, type(), 0, 0), b({k, n}, type(), 0, 0), out({m, n}, wide(), 0, 0);
      a.fill(1);
      b.fill(1);
      out.fill(0);
      b_.matmul({.a = a.view(), .b = b.view(), .out = out.view(), .transpose_a = transpose_a, .accumulate = true});
      expect_close("a sum of ones", out.get(), Values(static_cast<std::size_t>(m * n), static_cast<double>(k)), 0);
    }
  }
}

double slope(Activation kind, double x) {
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), t = std::tanh(u);
  switch (kind) {
    case Activation::gelu_tanh:
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
    case Activation::gelu:
      return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
    case Activation::relu: return x > 0 ? 1 : 0;
    case Activation::none: break;
  }
  return 1;
}

double activated(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu_tanh: return gelu_tanh(x);
    case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::relu: return x > 0 ? x : 0;
    case Activation::none: break;
  }
  return x;
}

constexpr Activation activations[] = {Activation::none, Activation::gelu_tanh, Activation::gelu, Activation::relu};

TEST_P(ProductsVerbs, PassesGradientsBackThroughActivations) {
  for (const auto& [m, n, k, gap] : product_sizes) {
    const double scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(k, 1)));
    Field a = values({m, k}, 1, 1, gap), b = values({k, n}, 2, scale, gap), before = values({m, n}, 3, 3, gap);
    const Values sum = product(a.get(), false, b.get(), false, m, n, k), x = before.get();
    for (const Activation kind : activations) {
      Field out = values({m, n}, 5, 1, gap + 1);
      b_.matmul({.a = a.view(), .b = b.view(), .out = out.view(), .activation = kind, .pre_activation = before.view(),
                 .activation_backward = true});
      Values wanted = sum;
      for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] *= slope(kind, x[i]);
      check("matmul through an activation", out, wanted);
      check("pre-activation", before, x);
    }
  }
}

TEST_P(ProductsVerbs, AddsTheBiasGradientOfAWeightGradient) {
  for (const auto& [m, n, k, gap] : product_sizes) {
    const double scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(k, 1)));
    Field dy = values({k, m}, 1, scale, gap), x = values({k, n}, 2, 1, gap), dw({m, n}, wide(), gap), db({m}, wide());
    dw.randomize(3);
    db.randomize(4);
    const Values before = dw.get(), d = dy.get(), added = product(d, true, x.get(), false, m, n, k);
    Values wanted = before, wanted_db = db.get();
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += added[i];
    for (std::size_t i = 0; i < d.size(); ++i) wanted_db[i % static_cast<std::size_t>(m)] += d[i];
    b_.matmul({.a = dy.view(), .b = x.view(), .out = dw.view(), .transpose_a = true, .accumulate = true,
               .bias_gradient = db.view()});
    check("weight gradient", dw, wanted, true);
    check("bias gradient", db, wanted_db, true);
    for (std::size_t i = 0; i < d.size(); ++i) wanted_db[i % static_cast<std::size_t>(m)] += d[i];
    b_.matmul({.a = dy.view(), .b = x.view(), .out = dw.view(), .transpose_a = true, .bias_gradient = db.view()});
    check("weight gradient, written", dw, added, true);
    check("bias gradient, added again", db, wanted_db, true);
  }
}

// Rows of every expert: alike and not, none at all, more experts than fit into one kernel's arguments.
const std::vector<std::vector<std::int64_t>> rows_of_experts = {
    {3, 0, 5, 1}, {4, 4, 4}, {7}, {0, 6, 0}, {0, 0}, {8, 8, 8, 8}, {0, 16, 8}, std::vector<std::int64_t>(90, 2), [] {
      std::vector<std::int64_t> many(70, 1);
      many[3] = 0;
      many[69] = 5;
      return many;
    }()};

struct Experts {
  std::vector<std::int64_t> rows;
  std::int64_t in, out, gap;  // widths; the gap goes with rows of tokens
  std::int64_t count() const { return std::ssize(rows); }
  std::int64_t all() const { return std::accumulate(rows.begin(), rows.end(), std::int64_t{0}); }
  // body(expert, row)
  template <class Body>
  void each(Body body) const {
    std::size_t row = 0;
    for (std::size_t e = 0; e < rows.size(); ++e) {
      for (std::int64_t i = 0; i < rows[e]; ++i) body(e, row++);
    }
  }
};

template <class Body>
void for_experts(Body body) {
  for (const auto& rows : rows_of_experts) {
    for (const auto& [in, out, gap] : {std::tuple<std::int64_t, std::int64_t, std::int64_t>{10, 6, 2}, {16, 24, 8}, {24, 12, 0}}) {
      SCOPED_TRACE(testing::Message() << rows.size() << " experts, " << in << " to " << out << ", first rows " << rows[0]);
      body(Experts{rows, in, out, gap});
    }
  }
}

TEST_P(ProductsVerbs, MultipliesExpertByExpert) {
  for_experts([&](const Experts& s) {
    for (const Activation kind : activations) {
      for (int parts = 0; parts < 8; ++parts) {
        const auto in = static_cast<std::size_t>(s.in), width = static_cast<std::size_t>(s.out);
        Field a = values({s.all(), s.in}, 3, 1, s.gap), b = values({s.count(), s.out, s.in}, 6, 0.3), bias = values({s.count(), s.out}, 9);
        Field residual = values({s.all(), s.out}, 12, 1, s.gap + 8), out = values({s.all(), s.out}, 0, 1, s.gap);
        Field before = values({s.all(), s.out}, 3, 1, s.gap + 16);
        Matmul call{.a = a.view(), .b = b.view(), .out = out.view(), .transpose_b = true, .activation = kind};
        if (parts & 1) call.bias = bias.view();
        if (parts & 2) call.residual = residual.view();
        if (parts & 4) call.pre_activation = before.view();
        b_.matmul_grouped(call, s.rows);
        const Values x = a.get(), w = b.get(), offsets = bias.get(), rest = residual.get();
        Values wanted, kept = before.get();
        s.each([&](std::size_t e, std::size_t row) {
          for (std::size_t j = 0; j < width; ++j) {
            double sum = (parts & 1 ? offsets[e * width + j] : 0) + (parts & 2 ? rest[row * width + j] : 0);
            for (std::size_t p = 0; p < in; ++p) sum += x[row * in + p] * w[(e * width + j) * in + p];
            wanted.push_back(sum);
          }
        });
        if (parts & 4 && kind != Activation::none) check("grouped pre-activation", before, wanted);
        for (auto& value : wanted) value = activated(kind, value);
        check("grouped product", out, wanted);
      }
    }
  });
}

TEST_P(ProductsVerbs, PassesGradientsBackExpertByExpert) {
  for_experts([&](const Experts& s) {
    const auto in = static_cast<std::size_t>(s.in), width = static_cast<std::size_t>(s.out);
    Field dy = values({s.all(), s.out}, 3, 1, s.gap), w = values({s.count(), s.out, s.in}, 6, 0.3), x = values({s.all(), s.in}, 9, 2, s.gap);
    const Values d = dy.get(), weight = w.get(), z = x.get();
    for (const Activation kind : activations) {
      Field dx = values({s.all(), s.in}, 12, 1, s.gap);
      b_.matmul_grouped({.a = dy.view(), .b = w.view(), .out = dx.view(), .activation = kind, .pre_activation = x.view(),
                         .activation_backward = true}, s.rows);
      Values wanted;
      s.each([&](std::size_t e, std::size_t row) {
        for (std::size_t j = 0; j < in; ++j) {
          double sum = 0;
          for (std::size_t p = 0; p < width; ++p) sum += d[row * width + p] * weight[(e * width + p) * in + j];
          wanted.push_back(sum * slope(kind, z[row * in + j]));
        }
      });
      check("grouped input gradient", dx, wanted);
    }
    for (const bool accumulate : {false, true}) {
      Field dw({s.count(), s.out, s.in}, wide(), 0, 0), db({s.count(), s.out}, wide(), 0, 0);
      dw.randomize(3);
      db.randomize(4);
      Values wanted = accumulate ? dw.get() : Values(static_cast<std::size_t>(dw.shape().size()), 0), wanted_db = db.get();
      s.each([&](std::size_t e, std::size_t row) {
        for (std::size_t p = 0; p < width; ++p) {
          wanted_db[e * width + p] += d[row * width + p];
          for (std::size_t j = 0; j < in; ++j) wanted[(e * width + p) * in + j] += d[row * width + p] * z[row * in + j];
        }
      });
      b_.matmul_grouped({.a = dy.view(), .b = x.view(), .out = dw.view(), .transpose_a = true, .accumulate = accumulate,
                         .bias_gradient = db.view()}, s.rows);
      check("grouped weight gradient", dw, wanted, true);
      check("grouped bias gradient", db, wanted_db, true);
    }
  });
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
                        Mixing{1, 1, 300, 310, 20}, Mixing{3, 0, 4, 4, 6}, Mixing{2, 2, 130, 140, 256}, Mixing{1, 3, 20, 20, 128},
                        Mixing{4, 3, 140, 150, 32}, Mixing{1, 3, 17, 17, 16}, Mixing{2, 1, 9, 9, 16},
                        Mixing{2, 2, 520, 530, 16}, Mixing{1, 2, 520, 520, 128}}) {
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
  Field square = values({4, 4}, 4), sums({3}, wide()), stacked = values({2, 4, 4}, 5), rows = values({3, 4}, 6);
  const Matmul fits{.a = a.view(), .b = square.view(), .out = rows.view()};
  Matmul call = fits;
  call.bias_gradient = sums.view();
  EXPECT_THROW(b_.matmul(call), Error) << "sums of a belong to a weight gradient";
  call = fits;
  call.activation = Activation::relu;
  call.activation_backward = true;
  EXPECT_THROW(b_.matmul(call), Error) << "there is no pre-activation";
  const Matmul grouped{.a = a.view(), .b = stacked.view(), .out = rows.view()};
  EXPECT_THROW(b_.matmul_grouped(grouped, std::vector<std::int64_t>{1, 1, 1}), Error);
  EXPECT_THROW(b_.matmul_grouped(grouped, std::vector<std::int64_t>{2, 2}), Error);
  EXPECT_THROW(b_.add(other, other, other), Error);
  EXPECT_THROW(b_.add(a.view(), b.view(), out.view()), Error);
}

}  // namespace
}  // namespace smlp::test
