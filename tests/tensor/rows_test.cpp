// Rows by index, routing, loss and update, against plain loops in f64.
#include <cmath>

#include "tests/tensor/verb_case.h"

namespace smlp::test {
namespace {

class RowsVerbs : public Verbs {};
INSTANTIATE_TEST_SUITE_P(On, RowsVerbs, testing::ValuesIn(verb_cases()), case_name);

const std::vector<double> picks = {4, -1, 0, 4, 2, -1, 1};

TEST_P(RowsVerbs, GathersScattersAndDotsRowsByIndex) {
  for (const std::int64_t width : {1, 15, 70}) {
    for (const bool weighted : {false, true}) {
      const std::int64_t count = 7;
      const double scale = weighted ? 1.5 : 1;
      Field table = values({5, width}, 1, 1, 2), index({count}, DType::i32), weights = values({count}, 2), out({count, width}, type(), 1);
      index.set(picks);
      const TensorView none;
      const Values in = table.get(), w = weights.get();
      const auto factor = [&](std::size_t s) { return scale * (weighted ? w[s] : 1); };
      const auto n = static_cast<std::size_t>(width);
      Values gathered(7 * n, 0);
      for (std::size_t s = 0; s < 7; ++s) {
        for (std::size_t c = 0; picks[s] >= 0 && c < n; ++c) gathered[s * n + c] = factor(s) * in[static_cast<std::size_t>(picks[s]) * n + c];
      }
      b_.gather_rows(table.view(), index.view(), scale, weighted ? weights.view() : none, out.view());
      check("gather_rows", out, gathered);

      Field rows = values({count, width}, 3, 1, 3), same = values({5, width}, 4, 1, 1), wider({5, width}, wide(), 2), dots({count}, wide());
      wider.randomize(5);
      const Values x = rows.get();
      Values added = same.get(), wide_added = wider.get(), wanted_dots(7, 0);
      for (std::size_t s = 0; s < 7; ++s) {
        for (std::size_t c = 0; picks[s] >= 0 && c < n; ++c) {
          const std::size_t to = static_cast<std::size_t>(picks[s]) * n + c;
          added[to] += factor(s) * x[s * n + c];
          wide_added[to] += factor(s) * x[s * n + c];
          wanted_dots[s] += x[s * n + c] * in[to];
        }
      }
      b_.scatter_add_rows(rows.view(), index.view(), Repeats::possible, scale, weighted ? weights.view() : none, same.view());
      expect_close("scatter_add_rows", same.get(), added, 2 * tolerance());
      b_.scatter_add_rows(rows.view(), index.view(), Repeats::possible, scale, weighted ? weights.view() : none, wider.view());
      check("scatter_add_rows to the wide type", wider, wide_added, true);
      b_.row_dots(rows.view(), table.view(), index.view(), dots.view());
      check("row_dots", dots, wanted_dots, true);
      EXPECT_TRUE(same.guards_intact());
    }
  }
  Field table = values({2, 3}, 1), index({1}, DType::i32), out({1, 3}, type());
  index.fill(2);
  EXPECT_THROW(finished([&] { b_.gather_rows(table.view(), index.view(), 1, {}, out.view()); }), Error);
}

// The gradient of a gate is a sum of as many products as a row is wide: in f16 it was infinite long before its rows.
TEST_P(RowsVerbs, DotsOfRowsGoBeyondWhatTheirTypeHolds) {
  Field rows({1, 64}, type()), index({1}, DType::i32), dot({1}, wide());
  rows.fill(64);
  index.fill(0);
  b_.row_dots(rows.view(), rows.view(), index.view(), dot.view());
  EXPECT_EQ(dot.get()[0], 64.0 * 64 * 64);
}

TEST_P(RowsVerbs, AddsToDistinctRowsInAnyOrder) {
  const std::vector<double> places = {6, -1, 0, 5, -3, 2, 1};
  for (const std::int64_t width : {1, 15, 70, 256}) {
    for (const bool weighted : {false, true}) {
      SCOPED_TRACE(testing::Message() << width << " wide, weighted: " << weighted);
      const double scale = weighted ? 1.5 : 1;
      for (const std::int64_t gap : {1, 8}) {
        Field rows = values({7, width}, 3, 1, gap), index({7}, DType::i32), weights = values({7}, 2), same = values({7, width}, 6, 1, gap);
        Field wider({7, width}, wide(), gap);
        wider.randomize(4);
        index.set(places);
        const Values x = rows.get(), w = weights.get();
        Values added = same.get(), wide_added = wider.get();
        const auto n = static_cast<std::size_t>(width);
        for (std::size_t s = 0; s < 7; ++s) {
          for (std::size_t c = 0; places[s] >= 0 && c < n; ++c) {
            const double one = scale * (weighted ? w[s] : 1) * x[s * n + c];
            added[static_cast<std::size_t>(places[s]) * n + c] += one;
            wide_added[static_cast<std::size_t>(places[s]) * n + c] += one;
          }
        }
        const TensorView factors = weighted ? weights.view() : TensorView();
        b_.scatter_add_rows(rows.view(), index.view(), Repeats::none, scale, factors, same.view());
        expect_close("to their own type", same.get(), added, 2 * tolerance());
        b_.scatter_add_rows(rows.view(), index.view(), Repeats::none, scale, factors, wider.view());
        check("to the wide type", wider, wide_added, true);
        EXPECT_TRUE(same.guards_intact() && wider.guards_intact());
      }
    }
  }
  Field rows = values({1, 3}, 1), index({1}, DType::i32), out({2, 3}, type());
  index.fill(2);
  EXPECT_THROW(finished([&] { b_.scatter_add_rows(rows.view(), index.view(), Repeats::none, 1, {}, out.view()); }), Error);
}

TEST_P(RowsVerbs, AssignsGreedilyAndGatesBySlot) {
  const std::int64_t tokens = 23, experts = 5;
  Field scores = values({tokens, experts}, 1, 2, 1), slots({tokens}, DType::i32);
  std::vector<double> s = scores.get();
  std::fill_n(s.begin() + 3 * experts, experts, 0.5);  // a tie: the lowest expert
  scores.set(s);
  s = scores.get();
  std::vector<std::int64_t> rows(5);
  b_.assign_greedy(scores.view(), slots.view(), rows);
  std::vector<double> wanted;
  std::vector<std::int64_t> wanted_rows;
  for (std::int64_t e = 0; e < experts; ++e) {
    wanted_rows.push_back(0);
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto row = s.begin() + t * experts;
      if (std::max_element(row, row + experts) - row != e) continue;
      wanted.push_back(static_cast<double>(t));
      ++wanted_rows.back();
    }
  }
  EXPECT_EQ(rows, wanted_rows);
  expect_close("slots", slots.get(), wanted, 0);

  wanted[2] = -1;
  slots.set(wanted);
  Field alpha({tokens}, type()), dalpha = values({tokens}, 7), dscores({tokens, experts}, wide(), 2);
  dscores.fill(0.25);
  std::vector<double> wanted_alpha, wanted_dscores = dscores.get();
  std::size_t slot = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t i = 0; i < rows[static_cast<std::size_t>(e)]; ++i, ++slot) {
      const auto place = static_cast<std::size_t>(wanted[slot]) * 5 + static_cast<std::size_t>(e);
      const bool used = wanted[slot] >= 0;
      const double a = used ? 1 / (1 + std::exp(-s[place])) : 0;
      wanted_alpha.push_back(a);
      const double stored = round_to(type(), a);
      if (used) wanted_dscores[place] += dalpha.get()[slot] * stored * (1 - stored);
    }
  }
  b_.sigmoid_of_slots(scores.view(), slots.view(), rows, alpha.view());
  check("sigmoid_of_slots", alpha, wanted_alpha);
  b_.sigmoid_of_slots_backward(alpha.view(), dalpha.view(), slots.view(), rows, dscores.view());
  expect_close("sigmoid_of_slots_backward", dscores.get(), wanted_dscores, narrow() ? 5e-3 : tolerance());
  EXPECT_TRUE(dscores.guards_intact());
}

TEST_P(RowsVerbs, AssignsEachGroupApart) {
  const std::int64_t groups = 3, experts = 4, in_group = 10, capacity = 3, tokens = groups * in_group;
  Field scores = values({tokens, experts}, 1), slots({experts, groups, capacity}, DType::i32), rounds({groups}, DType::i32);
  b_.assign_balanced(scores.view(), groups, slots.view(), rounds.view());
  const auto got = slots.get();
  std::vector<int> seen(static_cast<std::size_t>(tokens), 0);
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t g = 0; g < groups; ++g) {
      double last = -1;
      for (std::int64_t i = 0; i < capacity; ++i) {
        const double token = got[static_cast<std::size_t>((e * groups + g) * capacity + i)];
        if (token < 0) continue;
        EXPECT_GT(token, last);
        last = token;
        EXPECT_EQ(static_cast<std::int64_t>(token) / in_group, g);
        ++seen[static_cast<std::size_t>(token)];
      }
    }
  }
  EXPECT_EQ(seen, std::vector<int>(static_cast<std::size_t>(tokens), 1));
  for (const double r : rounds.get()) EXPECT_GT(r, 0);
}

TEST_P(RowsVerbs, CrossEntropyAndItsGradient) {
  for (const std::int64_t vocabulary : {1, 17, 1100}) {
    const std::int64_t rows = 4;
    Field logits = values({rows, vocabulary}, 1, 8, 3), targets({rows}, DType::i32), loss({rows}, DType::f64), scale({1}, DType::f64);
    targets.set({0, -1, static_cast<double>(vocabulary - 1), static_cast<double>(vocabulary / 2)});
    scale.set({0.125});
    const Values x = logits.get();
    Values wanted(4, 0), gradient(x.size(), 0);
    for (std::size_t r = 0; r < 4; ++r) {
      const double target = targets.get()[r];
      if (target < 0) continue;
      const auto n = static_cast<std::size_t>(vocabulary);
      double most = -INFINITY, sum = 0;
      for (std::size_t c = 0; c < n; ++c) most = std::max(most, x[r * n + c]);
      for (std::size_t c = 0; c < n; ++c) sum += std::exp(x[r * n + c] - most);
      wanted[r] = std::log(sum) + most - x[r * n + static_cast<std::size_t>(target)];
      for (std::size_t c = 0; c < n; ++c) {
        gradient[r * n + c] = 0.125 * (std::exp(x[r * n + c] - most) / sum - (static_cast<double>(c) == target ? 1 : 0));
      }
    }
    b_.cross_entropy(logits.view(), targets.view(), loss.view(), {}, false);
    expect_close("loss", loss.get(), wanted, type() == DType::f64 ? 1e-12 : 1e-6);
    expect_close("logits left alone", logits.get(), x, 0);
    loss.fill(9);
    b_.cross_entropy(logits.view(), targets.view(), loss.view(), scale.view(), true);
    expect_close("loss with the gradient", loss.get(), wanted, type() == DType::f64 ? 1e-12 : 1e-6);
    expect_close("gradient", logits.get(), gradient, type() == DType::f64 ? 1e-13 : type() == DType::f32 ? 1e-7 : 5e-4);
    EXPECT_TRUE(logits.guards_intact());
  }
}

TEST_P(RowsVerbs, SumsInDoublePrecision) {
  Field x = values({40, 1003}, 1, 1, 2), total({1}, DType::f64);
  total.fill(100);
  double sum = 100, squares = 100;
  for (const double value : x.get()) {
    sum += value;
    squares += value * value;
  }
  b_.sum(x.view(), total.view());
  EXPECT_NEAR(total.get()[0], sum, 1e-9);
  total.fill(100);
  b_.sum_of_squares(x.view(), total.view());
  EXPECT_NEAR(total.get()[0], squares, 1e-9);
}

TEST_P(RowsVerbs, UpdatesAsAdamW) {
  for (const std::int64_t count : {1, 37, 300}) {
    for (const bool clipped : {false, true}) {
      Field value = values({count}, 1), master({count}, wide()), grad({count}, wide()), m({count}, wide()), v({count}, wide());
      Field control({StepControl::size}, DType::f64);
      master.randomize(2);
      grad.randomize(3, 2);
      m.randomize(4);
      v.randomize(5);
      Values second = v.get();
      for (auto& s : second) s = std::abs(s);
      v.set(second);
      const AdamWSettings settings{.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.1, .clip_norm = clipped ? 0.5 : 0};
      const double rate = 1e-2, correction = 0.7, loss_scale = 0.25, squared_norm = 49;
      control.set({rate, correction, squared_norm, loss_scale});
      const bool has_master = narrow();
      Values p = has_master ? master.get() : value.get(), first = m.get(), g = grad.get();
      second = v.get();
      const double scale = loss_scale * (clipped ? 0.5 / (7 * loss_scale + 1e-6) : 1);
      for (std::size_t i = 0; i < p.size(); ++i) {
        first[i] = 0.9 * first[i] + (1 - 0.9) * g[i] * scale;
        second[i] = 0.98 * second[i] + (1 - 0.98) * g[i] * scale * g[i] * scale;
        p[i] -= rate * 0.1 * p[i];
        p[i] -= rate * correction * first[i] / (std::sqrt(second[i]) + 1e-8);
      }
      b_.adamw(settings, value.view(), has_master ? master.view() : TensorView{}, grad.view(), m.view(), v.view(), control.view());
      check("value", value, p);
      check("m", m, first, true);
      check("v", v, second, true);
      if (has_master) check("master", master, p, true);

      control.set({rate, correction, std::nan(""), loss_scale});
      const Values kept = value.get(), kept_m = m.get();
      b_.adamw(settings, value.view(), has_master ? master.view() : TensorView{}, grad.view(), m.view(), v.view(), control.view());
      expect_close("value when the norm is not finite", value.get(), kept, 0);
      expect_close("m when the norm is not finite", m.get(), kept_m, 0);
    }
  }
}

}  // namespace
}  // namespace smlp::test
