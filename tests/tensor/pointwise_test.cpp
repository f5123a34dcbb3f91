// Verbs element by element and row by row, against plain loops in f64.
#include <array>
#include <cmath>

#include "tensor/dropout.h"
#include "tests/tensor/verb_case.h"

namespace smlp::test {
namespace {

class PointwiseVerbs : public Verbs {};
INSTANTIATE_TEST_SUITE_P(On, PointwiseVerbs, testing::ValuesIn(verb_cases()), case_name);

const std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{1, 1}, {3, 7}, {5, 16}, {9, 67}, {17, 200}};

TEST_P(PointwiseVerbs, MovesFillsAndConverts) {
  for (const auto& [rows, width] : sizes) {
    Field a = values({rows, width}, 1, 1, 3), same(a.shape(), type(), 2), other(a.shape(), DType::f64);
    b_.copy(a.view(), same.view());
    expect_close("copy", same.get(), a.get(), 0);
    b_.copy(a.view(), other.view());
    expect_close("widened copy", other.get(), a.get(), 0);
    other.randomize(5);
    b_.copy(other.view(), same.view());
    Values rounded = other.get();
    for (auto& value : rounded) value = round_to(type(), value);
    expect_close("narrowed copy", same.get(), rounded, 0);
    b_.fill(same.view(), -0.75);
    expect_close("fill", same.get(), Values(rounded.size(), -0.75), 0);
    EXPECT_TRUE(same.guards_intact() && other.guards_intact());

    std::vector<std::byte> host(static_cast<std::size_t>(a.view().bytes()));
    b_.download(a.view(), host.data());
    b_.upload(host.data(), same.view());
    expect_close("there and back", same.get(), a.get(), 0);
  }
  Field index({3, 5}, DType::i32, 1), bytes({7}, DType::u8);
  b_.fill(index.view(), -1);
  b_.fill(bytes.view(), 3);
  expect_close("fill i32", index.get(), Values(15, -1), 0);
  expect_close("fill u8", bytes.get(), Values(7, 3), 0);
  Field from = values({6, 5}, 2, 1, 1), to = values({8, 5}, 3, 1, 2);
  Values wanted = to.get();
  const Values source = from.get();
  for (const auto& block : {RowBlock{4, 0, 2}, RowBlock{0, 5, 3}, RowBlock{1, 4, 0}}) {
    std::copy_n(source.begin() + block.from * 5, block.rows * 5, wanted.begin() + block.to * 5);
  }
  const RowBlock blocks[] = {{4, 0, 2}, {0, 5, 3}, {1, 4, 0}};
  b_.copy_rows(from.view(), to.view(), blocks);
  check("copy_rows", to, wanted);
}

TEST_P(PointwiseVerbs, KeepsInfinitiesAndNansWhenConverting) {
  Field from({1, 37}, DType::f32), to(from.shape(), type());
  Values special(37);
  for (std::size_t i = 0; i < special.size(); ++i) {
    special[i] = i % 3 == 0 ? std::nan("") : i % 3 == 1 ? INFINITY : -INFINITY;
  }
  from.set(special);
  b_.copy(from.view(), to.view());
  const Values got = to.get();
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(std::isnan(special[i]) ? std::isnan(got[i]) : got[i] == special[i]) << i;
  }
}

// Every fraction of 12 bits at every exponent that f16 has and some beyond: ties, subnormals, overflow.
TEST_P(PointwiseVerbs, RoundsToTheNearestWithTiesToEven) {
  Values numbers;
  for (int exponent = -30; exponent <= 20; ++exponent) {
    for (int fraction = 4096; fraction < 8192; ++fraction) {
      numbers.push_back((fraction % 3 ? 1 : -1) * std::ldexp(fraction, exponent - 12));
    }
  }
  Field from({1, std::ssize(numbers)}, DType::f32), to(from.shape(), type());
  from.set(numbers);
  b_.copy(from.view(), to.view());
  const Values got = to.get();
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] != round_to(type(), numbers[i]) && wrong++ < 5) ADD_FAILURE() << numbers[i] << " became " << got[i];
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(PointwiseVerbs, AddsInPlaceAndAcrossGaps) {
  // A range of positions of every sequence: rows that no single stride covers.
  Field whole = values({3, 7, 21}, 1), b = values({3, 4, 21}, 2, 1, 2);
  TensorView a = whole.view();
  a.data = a.at(2 * a.stride[1]);
  a.shape = {3, 4, 21};
  Values wanted = whole.get();
  const Values add = b.get();
  for (std::size_t s = 0; s < 3; ++s) {
    for (std::size_t i = 0; i < 4 * 21; ++i) wanted[s * 7 * 21 + 2 * 21 + i] += add[s * 4 * 21 + i];
  }
  b_.add(a, b.view(), a);
  check("add", whole, wanted);
}

constexpr auto activations = {Activation::none, Activation::gelu_tanh, Activation::gelu, Activation::relu};

double act(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2));
    case Activation::relu: return std::max(x, 0.0);
    default: return x;
  }
}

double act_slope(Activation kind, double x) {
  if (kind == Activation::none) return 1;
  if (kind == Activation::relu) return x > 0 ? 1 : 0;
  if (kind == Activation::gelu) return 0.5 * std::erfc(-x / std::sqrt(2)) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
  const double inner = std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + inner) + 0.5 * x * (1 - inner * inner) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

TEST_P(PointwiseVerbs, Activates) {
  for (const auto kind : activations) {
    for (const auto& [rows, width] : sizes) {
      Field x = values({rows, width}, 1, 6, 1), dy = values({rows, width}, 2, 1, 2), out({rows, width}, type(), 3);
      const Values in = x.get(), d = dy.get();
      Values wanted(in.size()), slopes(in.size());
      for (std::size_t i = 0; i < in.size(); ++i) {
        wanted[i] = act(kind, in[i]);
        slopes[i] = d[i] * act_slope(kind, in[i]);
      }
      b_.activate(kind, x.view(), out.view());
      check("activate", out, wanted);
      b_.activate_backward(kind, x.view(), dy.view(), out.view());
      check("activate_backward", out, slopes);
      b_.activate_backward(kind, x.view(), dy.view(), dy.view());
      check("activate_backward in place", dy, slopes);
    }
    Field extreme({1, 20}, type()), out({1, 20}, type());
    Values far, limit;
    const double most = type() == DType::f16 ? 6e4 : 1e9;  // what the type can hold
    for (int i = 0; i < 20; ++i) {
      far.push_back((i % 2 ? -1 : 1) * std::min(std::pow(10.0, i / 2), most));
      limit.push_back(act(kind, round_to(type(), far.back())));
    }
    extreme.set(far);
    b_.activate(kind, extreme.view(), out.view());
    check("activate far out", out, limit);
  }
}

TEST_P(PointwiseVerbs, Gates) {
  for (const auto kind : activations) {
    for (const std::int64_t groups : {1, 3}) {
      const std::int64_t sequences = 2, length = 5, channels = 33, part = channels / groups;
      const Shape shape{sequences, length, channels};
      Field u = values(shape, 1, 1, 4), z = values(shape, 2, 1, 1), bias = values({groups, length + 2}, 3), out(shape, type(), 2);
      Field dout = values(shape, 4, 1, 3), du(shape, type(), 1), dz(shape, type(), 5), dbias({groups, length + 2}, wide());
      dbias.fill(0.5);
      const Values x = u.get(), gate = z.get(), offsets = bias.get(), d = dout.get();
      Values wanted(x.size()), wanted_du(x.size()), wanted_dz(x.size()), wanted_dbias(dbias.get());
      for (std::size_t i = 0; i < x.size(); ++i) {
        const auto c = static_cast<std::int64_t>(i) % channels, t = static_cast<std::int64_t>(i) / channels % length;
        const auto place = static_cast<std::size_t>(c / part * (length + 2) + t);
        const double opened = gate[i] + offsets[place];
        wanted[i] = act(kind, x[i]) * opened;
        wanted_du[i] = d[i] * opened * act_slope(kind, x[i]);
        wanted_dz[i] = d[i] * act(kind, x[i]);
        wanted_dbias[place] += wanted_dz[i];
      }
      const auto positions = [&](Field& of_groups) {
        TensorView view = of_groups.view();
        view.shape = {groups, length};
        return view;
      };
      Gating gating{u.view(), z.view(), positions(bias), out.view(), kind};
      b_.gate(gating);
      check("gate", out, wanted);
      expect_close("gate's z", z.get(), gate, 0);
      gating.out = {};
      b_.gate_backward(gating, dout.view(), du.view(), dz.view(), positions(dbias));
      check("du", du, wanted_du);
      check("dz", dz, wanted_dz);
      check("dbias", dbias, wanted_dbias, true);
      dbias.fill(0.5);
      b_.gate_backward(gating, dout.view(), du.view(), z.view(), positions(dbias));
      check("dz in place of z", z, wanted_dz);
      check("du when dz is in place", du, wanted_du);
    }
  }
}

TEST_P(PointwiseVerbs, SumsRows) {
  for (const auto& [rows, width] : sizes) {
    Field x = values({rows, width}, 1, 1, 2), same = values({width}, 2), wider({width}, wide());
    wider.randomize(3);
    Values wanted = wider.get(), narrow = same.get();
    const Values in = x.get();
    for (std::size_t i = 0; i < in.size(); ++i) {
      wanted[i % static_cast<std::size_t>(width)] += in[i];
      narrow[i % static_cast<std::size_t>(width)] += in[i];
    }
    b_.sum_rows(x.view(), wider.view());
    check("sum_rows", wider, wanted, true);
    b_.sum_rows(x.view(), same.view());
    check("sum_rows in the values' type", same, narrow);
  }
}

TEST_P(PointwiseVerbs, DropsWhatTheKeySays) {
  for (const auto& [rows, width] : sizes) {
    Field x = values({rows, width}, 1, 1, 1), out({rows, width}, type(), 2);
    const double rate = 0.3;
    const std::uint64_t stream = 0x123456789ABCDEF0;
    const std::int64_t step = 5, first = 11;
    const std::uint64_t key = RandomStream(stream).bits(step);
    Values wanted = x.get();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const bool keep = dropout_keeps(key, static_cast<std::uint64_t>(first * width) + i, rate);
      wanted[i] = keep ? wanted[i] / (1 - rate) : 0;
    }
    Field place({StreamPlace::size}, DType::i64, 0, 0);  // where a device can read it
    place.set({step, first});
    Field residual = values({rows, width}, 2, 3, 2), joined({rows, width}, type(), 1);
    Values sums = wanted;
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += residual.get()[i];
    b_.dropout(x.view(), rate, stream, place.view(), {}, out.view());
    check("dropout", out, wanted);
    b_.dropout(x.view(), rate, stream, place.view(), residual.view(), joined.view());
    check("dropout and residual", joined, sums);
    b_.dropout(x.view(), rate, stream, place.view(), residual.view(), residual.view());
    check("dropout and residual, in its place", residual, sums);
    b_.dropout(x.view(), rate, stream, place.view(), {}, x.view());
    check("dropout in place", x, wanted);
  }
  Field ones({200, 200}, type()), beginning({StreamPlace::size}, DType::i64, 0, 0);
  ones.fill(1);
  beginning.fill(0);
  b_.dropout(ones.view(), 0.25, 42, beginning.view(), {}, ones.view());
  const Values got = ones.get();
  const auto dropped = std::count(got.begin(), got.end(), 0.0);
  EXPECT_NEAR(static_cast<double>(dropped), 10000, 4 * std::sqrt(40000 * 0.25 * 0.75));
}

TEST_P(PointwiseVerbs, NormalisesRunsOfRowsByLinesOfTheirOwn) {
  constexpr std::int64_t lines = 3, run = 5, rows = lines * run, width = 34;
  for (const std::int64_t groups : {1, 2}) {
    Field x = values({rows, width}, 1, 2, 3), weight = values({lines, width}, 2), bias = values({lines, width}, 3);
    Field dy = values({rows, width}, 4, 1, 2), residual = values({rows, width}, 5);
    struct Told {
      Field out, mean, inverse, dx, dweight, dbias;
    };
    const auto make = [&] {
      Told told{Field({rows, width}, type()), Field({rows, groups}, wide()), Field({rows, groups}, wide()),
                Field({rows, width}, type()), Field({lines, width}, wide()), Field({lines, width}, wide())};
      told.dweight.fill(1);
      told.dbias.fill(2);
      return told;
    };
    Told whole = make(), apart = make();
    const Normalisation n{x.view(), weight.view(), bias.view(), groups, whole.mean.view(), whole.inverse.view()};
    b_.layer_norm(n, whole.out.view());
    b_.layer_norm_backward(n, dy.view(), residual.view(), whole.dx.view(), whole.dweight.view(), whole.dbias.view());
    for (std::int64_t l = 0; l < lines; ++l) {
      const auto of = [&](Field& field) { return field.view().row_range(l * run, run); };
      const Normalisation one{of(x), weight.view().slice(l), bias.view().slice(l), groups, of(apart.mean), of(apart.inverse)};
      b_.layer_norm(one, of(apart.out));
      b_.layer_norm_backward(one, of(dy), of(residual), of(apart.dx), apart.dweight.view().slice(l),
                             apart.dbias.view().slice(l));
    }
    expect_close("out", whole.out.get(), apart.out.get(), 0);
    expect_close("mean", whole.mean.get(), apart.mean.get(), 0);
    expect_close("dx", whole.dx.get(), apart.dx.get(), 0);
    expect_close("dweight", whole.dweight.get(), apart.dweight.get(), 10 * wide_tolerance());
    expect_close("dbias", whole.dbias.get(), apart.dbias.get(), 10 * wide_tolerance());
  }
}

TEST_P(PointwiseVerbs, NormalisesEachGroup) {
  for (const auto kind : activations) {
    for (const std::int64_t groups : {1, 2}) {
      for (const bool affine : {true, false}) {
        for (const std::int64_t width : {2, 34, 64, 130}) {
          const std::int64_t rows = 5, part = width / groups;
          if (part < 2) continue;
          Field x = values({rows, width}, 1, 2, 3), w = values({width}, 2), bias = values({width}, 3), out({rows, width}, type(), 1);
          Field mean({rows, groups}, wide()), inverse({rows, groups}, wide());
          const Values before = x.get(), scale = w.get(), shift = bias.get();
          Values in = before;
          for (double& value : in) value = act(kind, value);
          Values wanted(in.size()), means, inverses, normed(in.size());
          for (std::int64_t r = 0; r < rows * groups; ++r) {
            const auto first = static_cast<std::size_t>(r * part), count = static_cast<std::size_t>(part);
            double sum = 0, squares = 0;
            for (std::size_t i = first; i < first + count; ++i) sum += in[i] / static_cast<double>(part);
            for (std::size_t i = first; i < first + count; ++i) squares += (in[i] - sum) * (in[i] - sum);
            means.push_back(sum);
            inverses.push_back(1 / std::sqrt(squares / static_cast<double>(part) + 1e-5));
            for (std::size_t i = first; i < first + count; ++i) {
              const std::size_t c = i % static_cast<std::size_t>(width);
              normed[i] = (in[i] - sum) * inverses.back();
              wanted[i] = affine ? normed[i] * scale[c] + shift[c] : normed[i];
            }
          }
          const TensorView none;
          const Normalisation n{x.view(),    affine ? w.view() : none, affine ? bias.view() : none, groups, mean.view(),
                                inverse.view(), kind};
          b_.layer_norm(n, out.view());
          check("layer_norm", out, wanted);
          check("mean", mean, means, true);
          expect_close("inverse deviation", inverse.get(), inverses, 20 * wide_tolerance());

          Field dy = values({rows, width}, 4, 1, 2), residual = values({rows, width}, 5, 1, 1), dx({rows, width}, type(), 4);
          Field dweight({width}, wide()), dbias({width}, wide());
          dweight.fill(1);
          dbias.fill(2);
          const Values d = dy.get(), rest = residual.get();
          Values wanted_dx(d.size()), wanted_dw(static_cast<std::size_t>(width), 1), wanted_db(static_cast<std::size_t>(width), 2);
          for (std::int64_t r = 0; r < rows * groups; ++r) {
            const auto first = static_cast<std::size_t>(r * part), count = static_cast<std::size_t>(part);
            double sum = 0, product = 0;
            const auto dn = [&](std::size_t i) { return affine ? d[i] * scale[i % static_cast<std::size_t>(width)] : d[i]; };
            for (std::size_t i = first; i < first + count; ++i) {
              sum += dn(i) / static_cast<double>(part);
              product += dn(i) * normed[i] / static_cast<double>(part);
              wanted_dw[i % static_cast<std::size_t>(width)] += d[i] * normed[i];
              wanted_db[i % static_cast<std::size_t>(width)] += d[i];
            }
            for (std::size_t i = first; i < first + count; ++i) {
              const double back = (dn(i) - sum - normed[i] * product) * inverses[static_cast<std::size_t>(r)];
              wanted_dx[i] = back * act_slope(kind, before[i]) + (affine ? rest[i] : 0);
            }
          }
          const double scale_of_dx = *std::max_element(inverses.begin(), inverses.end());
          const double dx_tolerance = tolerance() * std::max(1.0, scale_of_dx * scale_of_dx);
          b_.layer_norm_backward(n, dy.view(), affine ? residual.view() : none, dx.view(), affine ? dweight.view() : none,
                                 affine ? dbias.view() : none);
          expect_close("dx", dx.get(), wanted_dx, dx_tolerance);
          EXPECT_TRUE(dx.guards_intact());
          if (affine) {
            expect_close("dweight", dweight.get(), wanted_dw, 10 * wide_tolerance());
            check("dbias", dbias, wanted_db, true);
            b_.layer_norm_backward(n, dy.view(), residual.view(), residual.view(), dweight.view(), dbias.view());
            expect_close("dx in place of the residual", residual.get(), dx.get(), 0);
            Normalisation bare = n;
            bare.weight = none;
            b_.layer_norm_backward(bare, dy.view(), none, dx.view(), none, none);
            b_.layer_norm_backward(bare, dy.view(), none, dy.view(), none, none);
            expect_close("dx in place of dy", dy.get(), dx.get(), 0);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace smlp::test
