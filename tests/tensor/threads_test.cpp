// Kernels shared out to a rank's threads: the bits of one thread, for any number of them.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tensor/backend.h"
#include "tensor/cpu/team.h"
#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

using cpu::Share;
using cpu::Team;

TEST(Team, CutsARangeIntoPartsThatCoverItOnce) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "it does not see how OpenMP's threads wait for each other";
#endif
  for (const int threads : {1, 2, 3, 5, 8}) {
    for (const std::int64_t count : {0, 1, 63, 64, 65, 1000, 4097}) {
      const Team team(threads);
      std::vector<int> rows(static_cast<std::size_t>(count)), columns = rows;
      std::atomic<int> unaligned = 0, crowded = 0;
      team.share(count, Team::least_work, [&](const Share& share) {
        crowded += share.index >= threads;
        for (std::int64_t i = 0; i < share.count; ++i) ++rows[static_cast<std::size_t>(share.first + i)];
      });
      team.share_columns(count, Team::least_work, [&](const Share& share) {
        unaligned += share.first % Team::unit != 0;
        for (std::int64_t i = 0; i < share.count; ++i) ++columns[static_cast<std::size_t>(share.first + i)];
      });
      EXPECT_EQ(rows, std::vector<int>(rows.size(), 1)) << threads << " threads, " << count;
      EXPECT_EQ(columns, std::vector<int>(rows.size(), 1)) << threads << " threads, " << count;
      EXPECT_EQ(unaligned + crowded, 0);
    }
  }
}

TEST(Team, LeavesWhatIsSmallToTheCallingThread) {
  const auto whole = [](const Team& team, std::int64_t count, std::int64_t work) {
    const auto caller = std::this_thread::get_id();
    bool alone = false;
    if (team.parts(count, work) == 1) {
      team.share(count, work, [&](const Share& share) { alone = share.count == count && std::this_thread::get_id() == caller; });
    }
    return alone;
  };
  EXPECT_TRUE(whole(Team(5), 2, Team::least_work - 1));
  EXPECT_FALSE(whole(Team(5), 2, Team::least_work));
  EXPECT_TRUE(whole(Team(5), 1, 100 * Team::least_work)) << "a row is not cut";
  EXPECT_TRUE(whole(Team(1), 1000, Team::least_work));
  EXPECT_EQ(Team(5).parts(1000, Team::least_work), 5);
  EXPECT_EQ(Team(5).parts(3 * Team::unit, Team::least_work, Team::unit), 3);
}

class Threads : public testing::TestWithParam<DType> {
 protected:
  using Values = std::vector<double>;
  using Results = std::vector<std::pair<std::string, std::vector<std::byte>>>;

  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "it does not see how OpenMP's threads wait for each other";
#endif
  }

  // What `verbs` leaves in its fields with 2, 3 and 5 threads is what it leaves with one.
  template <class Verbs>
  void same_bits(const std::string& where, const Verbs& verbs) {
    Results wanted;
    for (const int threads : {1, 2, 3, 5}) {
      const auto backend = make_cpu_backend({.threads = threads});
      Results got;
      verbs(*backend, [&](const char* what, const Field& field) { got.emplace_back(what, field.bytes()); });
      if (threads == 1) wanted = std::move(got);
      else compare(where + " with " + std::to_string(threads) + " threads", got, wanted);
    }
  }

  static void compare(const std::string& where, const Results& got, const Results& wanted) {
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(got[i] == wanted[i]) << got[i].first << ' ' << where;
  }

  DType type() const { return GetParam(); }
  bool narrow() const { return size_of(type()) == 2; }
  DType wide() const { return wide_type(type()); }

  Field values(Shape shape, std::uint64_t seed, double scale = 1, std::int64_t gap = 0) const {
    Field field(shape, type(), gap, static_cast<std::int64_t>(seed % 3));
    field.randomize(seed, scale);
    return field;
  }

  Field whole_numbers(Shape shape, std::uint64_t seed) const {  // whose products and sums are exact
    Field field(shape, type(), 1);
    Values values = this->values(shape, seed, 3).get();
    for (auto& value : values) value = static_cast<double>(static_cast<int>(value));
    field.set(values);
    return field;
  }
};
INSTANTIATE_TEST_SUITE_P(In, Threads, testing::Values(DType::f64, DType::f32, DType::bf16, DType::f16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

// One part and two of plain kernels and of others; few rows, which are cut by columns, and odd ends.
const std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{1, 33001}, {9, 1027}, {37, 901}, {261, 129}};

TEST_P(Threads, ElementsAreTheSameBits) {
  for (const auto& [rows, width] : sizes) {
    const Shape shape{rows, width};
    Field a = values(shape, 1, 3, 1), b = values(shape, 2, 2, 3), f64(shape, DType::f64, 1), narrow_from(shape, wide(), 2);
    f64.randomize(3);
    narrow_from.randomize(4);
    Field place({StreamPlace::size}, DType::i64);
    place.set({7, 1001});
    same_bits(std::to_string(rows) + " x " + std::to_string(width), [&](Backend& backend, auto keep) {
      Field out = b;
      backend.fill(out.view(), 0.3);
      keep("fill", out);
      backend.copy(a.view(), out.view());
      keep("copy", out);
      backend.copy(f64.view(), out.view());
      keep("copy from f64", out);
      backend.copy(narrow_from.view(), out.view());
      keep("copy from the wide type", out);
      Field widened = f64;
      backend.copy(a.view(), widened.view());
      keep("copy to f64", widened);
      backend.add(a.view(), b.view(), out.view());
      keep("add", out);
      for (const auto kind : {Activation::gelu_tanh, Activation::gelu}) {
        backend.activate(kind, a.view(), out.view());
        keep("activate", out);
        backend.activate_backward(kind, a.view(), b.view(), out.view());
        keep("activate_backward", out);
      }
      backend.dropout(a.view(), 0.2, 5, place.view(), b.view(), out.view());
      keep("dropout", out);
      backend.jitter(a.view(), 0.1, 9, 3, out.view());
      keep("jitter", out);
    });
  }
}

TEST_P(Threads, RowsAndSumsOverThemAreTheSameBits) {
  for (const auto& [rows, width] : sizes) {
    const Shape shape{rows, width};
    const Values none;
    Field a = values(shape, 1, 3, 1), b = values(shape, 2, 2, 3), table = values({7, width}, 3), weights = values({rows}, 4);
    Field index({rows}, DType::i32), targets({rows}, DType::i32), scale({1}, DType::f64), sums({width}, wide());
    Field same_sums = values({width}, 6);
    Values picks, words;
    for (std::int64_t r = 0; r < rows; ++r) {
      picks.push_back(static_cast<double>(r * 5 % 9 - 1 > 6 ? 0 : r * 5 % 9 - 1));
      words.push_back(static_cast<double>(r % 11 == 3 ? -1 : r * 31 % width));
    }
    index.set(picks);
    targets.set(words);
    scale.fill(0.01);
    sums.randomize(5);
    same_bits(std::to_string(rows) + " x " + std::to_string(width), [&](Backend& backend, auto keep) {
      Field out = b, added = sums, same_added = same_sums;
      backend.sum_rows(a.view(), added.view());
      keep("sum_rows", added);
      backend.sum_rows(a.view(), same_added.view());
      keep("sum_rows to the values' type", same_added);
      backend.gather_rows(table.view(), index.view(), 1.5, weights.view(), out.view());
      keep("gather_rows", out);
      Field scattered = table, scattered_wide(table.shape(), wide(), 1), dots({rows}, wide());
      scattered_wide.fill(0.5);
      backend.scatter_add_rows(a.view(), index.view(), Repeats::possible, 1.5, weights.view(), scattered.view());
      keep("scatter_add_rows", scattered);
      backend.scatter_add_rows(a.view(), index.view(), Repeats::possible, 1.5, {}, scattered_wide.view());
      keep("scatter_add_rows to the wide type", scattered_wide);
      backend.row_dots(a.view(), table.view(), index.view(), dots.view());
      keep("row_dots", dots);
      Field logits = a, loss({rows}, DType::f64), loss_alone({rows}, DType::f64), total({2}, DType::f64);
      backend.cross_entropy(logits.view(), targets.view(), loss_alone.view(), scale.view(), false);
      keep("loss", loss_alone);
      backend.cross_entropy(logits.view(), targets.view(), loss.view(), scale.view(), true);
      keep("loss before its gradient", loss);
      keep("gradient of the loss", logits);
      total.fill(0);
      backend.sum(a.view(), total.view().row_range(0, 1));
      keep("sum", total);
      backend.sum_of_squares(a.view(), total.view().row_range(0, 1));
      keep("sum_of_squares", total);
    });
  }
}

TEST_P(Threads, NormsAreTheSameBits) {
  for (const auto& [rows, width, groups, lines] : std::vector<std::array<std::int64_t, 4>>{
           {9, 1027, 1, 1}, {37, 903, 3, 1}, {264, 132, 4, 1}, {140, 320, 1, 2}}) {
    for (const auto kind : {Activation::none, Activation::gelu_tanh}) {
      const Shape shape{rows, width}, line = lines == 1 ? Shape{width} : Shape{lines, width};
      Field x = values(shape, 1, 3, 1), dy = values(shape, 2, 2, 3), weight = values(line, 3, 1, 0), bias = values(line, 4, 1, 0);
      Field residual = values(shape, 5, 1, 2), sums(line, wide());
      sums.randomize(6);
      same_bits(std::to_string(rows) + " x " + std::to_string(width), [&](Backend& backend, auto keep) {
        Field out = dy, mean({rows, groups}, wide()), inverse({rows, groups}, wide());
        const Normalisation n{.x = x.view(), .weight = weight.view(), .bias = bias.view(), .groups = groups,
                              .mean = mean.view(), .inverse_deviation = inverse.view(), .activation = kind};
        backend.layer_norm(n, out.view());
        keep("layer_norm", out);
        keep("mean", mean);
        keep("inverse_deviation", inverse);
        Field dx = dy, dweight = sums, dbias = sums;
        backend.layer_norm_backward(n, dx.view(), residual.view(), dx.view(), dweight.view(), dbias.view());
        keep("layer_norm_backward in place", dx);
        keep("dweight", dweight);
        keep("dbias", dbias);
        backend.layer_norm_backward(n, dy.view(), {}, dx.view(), dweight.view(), {});
        keep("dweight alone", dweight);
        backend.layer_norm_backward(n, dy.view(), {}, dx.view(), {}, dbias.view());
        keep("dbias alone", dbias);
        Normalisation plain = n;
        plain.weight = plain.bias = {};
        backend.layer_norm_backward(plain, dy.view(), {}, dx.view(), {}, {});
        keep("layer_norm_backward without weights", dx);
      });
    }
  }
}

TEST_P(Threads, GatesAndColumnsAreTheSameBits) {
  for (const auto& [length, columns, groups] :
       std::vector<std::array<std::int64_t, 3>>{{9, 511, 1}, {37, 453, 3}, {131, 258, 2}}) {
    const Shape shape{2, length, columns};
    Field u = values(shape, 1, 3, 1), z = values(shape, 2, 2, 3), dout = values(shape, 3), bias = values({groups, length + 2}, 4);
    Field sums({groups, length + 2}, wide()), index({2, columns}, DType::i32), scale = values({2, columns}, 5, 1, 0);
    sums.randomize(6);
    Values order;
    for (std::int64_t i = 0; i < 2 * columns; ++i) order.push_back(static_cast<double>(columns - 1 - i % columns));
    index.set(order);
    same_bits(std::to_string(length) + " x " + std::to_string(columns), [&](Backend& backend, auto keep) {
      Field out = dout, du = dout, dz = dout, dbias = sums, dots({2, columns}, wide());
      TensorView gate_bias = bias.view(), gate_sums = dbias.view();
      gate_bias.shape = gate_sums.shape = {groups, length};
      for (const auto kind : {Activation::none, Activation::gelu_tanh}) {
        const Gating g{.u = u.view(), .z = z.view(), .bias = gate_bias, .out = out.view(), .activation = kind};
        backend.gate(g);
        keep("gate", out);
        backend.gate_backward(g, dout.view(), du.view(), dz.view(), gate_sums);
        keep("du", du);
        keep("dz", dz);
        keep("dbias", dbias);
      }
      backend.gather_columns(u.view(), index.view(), scale.view(), out.view());
      keep("gather_columns", out);
      backend.scatter_columns(z.view(), index.view(), {}, out.view());
      keep("scatter_columns", out);
      backend.column_dots(u.view(), z.view(), dots.view());
      keep("column_dots", dots);
    });
  }
}

TEST_P(Threads, UpdatesAreTheSameBits) {
  for (const std::int64_t count : {8191, 8193, 16500, 33001}) {
    Field value = values({count}, 1), grad({count}, wide()), average({count}, wide()), square({count}, wide());
    Field master({count}, DType::f32), control({StepControl::size}, DType::f64);
    grad.randomize(2);
    average.randomize(3);
    square.randomize(4, 0.1);
    Values squares = square.get();
    for (auto& x : squares) x = std::abs(x);
    square.set(squares);
    master.randomize(5);
    control.set({1e-2, 0.9, 4, 0.5});
    same_bits(std::to_string(count), [&](Backend& backend, auto keep) {
      Field p = value, m = average, v = square, kept = master;
      backend.adamw({.weight_decay = 0.1, .clip_norm = 0.5}, p.view(), narrow() ? kept.view() : TensorView(), grad.view(),
                    m.view(), v.view(), control.view());
      keep("value", p);
      keep("m", m);
      keep("v", v);
      keep("master", kept);
    });
  }
}

TEST_P(Threads, WhatFollowsAProductIsTheSameBits) {
  for (const auto& [rows, width] : std::vector<std::pair<std::int64_t, std::int64_t>>{{9, 1027}, {37, 901}, {261, 129}}) {
    const std::int64_t depth = 5;
    const Shape shape{rows, width};
    Field x = whole_numbers({rows, depth}, 1), w = whole_numbers({width, depth}, 2), bias = values({width}, 3);
    Field residual = values(shape, 4);
    same_bits(std::to_string(rows) + " x " + std::to_string(width), [&](Backend& backend, auto keep) {
      Field out = residual, before = residual;
      for (const auto kind : {Activation::none, Activation::gelu_tanh}) {
        const Matmul m{.a = x.view(), .b = w.view(), .out = out.view(), .transpose_b = true, .bias = bias.view(),
                       .residual = residual.view(), .activation = kind, .pre_activation = before.view()};
        backend.matmul(m);
        keep("product", out);
        keep("pre_activation", before);
      }
    });
  }
}

// Of sums that products take in some order, one term is not 0.
TEST_P(Threads, AttentionIsTheSameBits) {
  const std::int64_t sequences = 2, length = 200, heads = 2, width = 32, channels = heads * width;
  const Shape shape{sequences, length, channels};
  Field query = whole_numbers(shape, 1), key = whole_numbers(shape, 2), value(shape, type()), dout(shape, type());
  Values first(static_cast<std::size_t>(shape.size())), one = first;
  for (std::int64_t b = 0; b < sequences; ++b) {
    for (std::int64_t c = 0; c < channels; ++c) {
      first[static_cast<std::size_t>(b * length * channels + c)] = static_cast<double>(1 + c % 3);
      one[static_cast<std::size_t>((b * length + (b == 0 ? 90 : 199)) * channels + c)] = static_cast<double>(1 + c % 2);
    }
  }
  value.set(first);
  dout.set(one);
  same_bits("of 200", [&](Backend& backend, auto keep) {
    Field out(shape, type()), log_sum({sequences, heads, length}, wide(), 0, 0);
    Field dquery(shape, type()), dkey(shape, type()), dvalue(shape, type());
    const Attention a{query.view(), key.view(), value.view(), out.view(), log_sum.view(), heads};
    backend.attention(a);
    keep("attention", out);
    keep("log_sum", log_sum);
    backend.attention_backward(a, dout.view(), dquery.view(), dkey.view(), dvalue.view());
    keep("dkey", dkey);
    keep("dvalue", dvalue);
  });
}

}  // namespace
}  // namespace smlp::test
