// Switch and GShard gates against the references' numbers, and against a plain reading of their rules on random logits.
#include <gtest/gtest.h>

#include "tests/routing/plain_rules.h"
#include "tests/routing/router_bench.h"

namespace smlp {
namespace {

using test::Decision;
using test::Plain;
using test::RouterBench;
using test::gshard_settings;
using test::plainly;
using test::switch_settings;
using test::vector_logits;

TEST(SwitchRouter, GivesTheReferencesNumbers) {
  RouterBench b;
  b.make(switch_settings(), 3, 3);
  b.identity_weight();
  RouteCall call = b.call(6);
  b.with_losses(call, 1);
  const Decision d = b.decide(call, b.rows(vector_logits, 3));
  EXPECT_EQ(d.tokens_of_expert, (std::vector<std::vector<std::int32_t>>{{0, 1}, {2}, {5}}));
  EXPECT_EQ(d.dropped, 2);
  EXPECT_NEAR(d.weight[0][0], .665241, 5e-7);
  EXPECT_NEAR(d.weight[1][0], .459270, 5e-7);
  EXPECT_NEAR(d.weight[2][1], .367165, 5e-7);
  EXPECT_NEAR(d.weight[5][2], .665241, 5e-7);
  const auto losses = test::read(*b.backend, call.auxiliary);
  EXPECT_NEAR(losses[0], 1.190435, 5e-7);
  EXPECT_NEAR(losses[1], 6.754842, 5e-7);
  // Without a limit the two that were dropped weigh what the reference says too.
  RouterBench free;
  RouterSettings settings = switch_settings();
  settings.softmax.training.factor = 0;
  free.make(settings, 3, 3);
  free.identity_weight();
  const Decision all = free.decide(free.call(6), free.rows(vector_logits, 3));
  EXPECT_NEAR(all.weight[3][0], .879424, 5e-7);
  EXPECT_NEAR(all.weight[4][0], .367165, 5e-7);
  EXPECT_EQ(all.dropped, 0);
}

TEST(GshardRouter, GivesTheReferencesNumbersNormalisedAfterAndBefore) {
  const std::vector<std::pair<int, int>> chosen = {{0, 1}, {0, 1}, {1, 2}, {0, 1}, {0, 1}, {2, 1}};
  const std::vector<std::pair<double, double>> after = {{.731059, .268941}, {.524979, .475021}, {.524979, .475021},
                                                        {.924142, .075858}, {1, -1},            {1, -1}};
  for (const bool before : {false, true}) {
    RouterBench b;
    b.make(gshard_settings(SecondChoice::all, before), 3, 3);
    b.identity_weight();
    RouteCall call = b.call(6);
    b.with_losses(call, 1);
    const Decision d = b.decide(call, b.rows(vector_logits, 3));
    auto wanted = after;
    if (before) {
      wanted[4].first = .524979;
      wanted[5].first = .731059;
    }
    for (std::size_t s = 0; s < 6; ++s) {
      const auto [first, second] = chosen[s];
      EXPECT_NEAR(d.weight[s][static_cast<std::size_t>(first)], wanted[s].first, 5e-7) << s;
      if (wanted[s].second < 0) {
        EXPECT_FALSE(d.sent(s, static_cast<std::size_t>(second))) << s;
      } else {
        EXPECT_NEAR(d.weight[s][static_cast<std::size_t>(second)], wanted[s].second, 5e-7) << s;
      }
    }
    EXPECT_EQ(d.dropped, 2);
    EXPECT_NEAR(test::read(*b.backend, call.auxiliary)[0], 1.190435, 5e-7) << "first choices alone count";
  }
}

struct RuleCase {
  std::size_t choices;
  bool before;
  double threshold;
  PlaceOrder by;
  double factor;
};

class SoftmaxRules : public testing::TestWithParam<RuleCase> {};

TEST_P(SoftmaxRules, AreThoseOfTheReferencesOnRandomLogits) {
  const RuleCase& p = GetParam();
  for (std::uint64_t seed = 0; seed < 25; ++seed) {
    const std::int64_t experts = 2 + static_cast<std::int64_t>(seed % 5), tokens = 3 + static_cast<std::int64_t>(seed * 5 % 37);
    RouterSettings settings = p.choices == 1 ? switch_settings() : gshard_settings(SecondChoice::all, p.before);
    if (p.threshold > 0) {
      settings.softmax.second = SecondChoice::threshold;
      settings.softmax.second_threshold = p.threshold;
    }
    settings.softmax.order = p.by;
    settings.softmax.training.factor = p.factor;
    RouterBench b;
    b.make(settings, experts, experts);
    b.identity_weight();
    auto logits = test::random_values(tokens * experts, seed, 2);
    for (std::size_t i = 0; i < logits.size(); i += 7) logits[i] = std::round(logits[i]);
    RouteCall call = b.call(tokens);
    b.with_losses(call, 1);
    const Decision d = b.decide(call, b.rows(logits, experts));
    const double even = std::ceil(static_cast<double>(tokens) / static_cast<double>(experts));
    const double capacity =
        p.factor == 0 ? 1e9 : static_cast<double>(p.choices) * std::floor(p.factor * even);
    const Plain plain = plainly(logits, static_cast<std::size_t>(experts), p.choices, capacity, p.before, p.threshold, p.by);
    std::size_t missing = 0;
    for (std::size_t s = 0; s < plain.weight.size(); ++s) {
      for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e) {
        const double wanted = plain.weight[s][e];
        ASSERT_EQ(d.sent(s, e), wanted == wanted) << "seed " << seed << ", token " << s << ", expert " << e;
        if (wanted == wanted) {
          ASSERT_NEAR(d.weight[s][e], wanted, 1e-12) << "seed " << seed << ", token " << s;
        }
        missing += d.sent(s, e) ? 0 : 1;
      }
    }
    if (p.threshold == 0) {
      const std::size_t unchosen = plain.weight.size() * (static_cast<std::size_t>(experts) - p.choices);
      EXPECT_EQ(d.dropped, static_cast<double>(missing - unchosen));
    }
    EXPECT_NEAR(test::read(*b.backend, call.auxiliary)[0], plain.balance, 1e-12);
  }
}

using enum PlaceOrder;
INSTANTIATE_TEST_SUITE_P(Rules, SoftmaxRules,
                         testing::Values(RuleCase{1, false, 0, position, 1}, RuleCase{1, false, 0, gate, 1},
                                         RuleCase{1, false, 0, choice_gate, 1}, RuleCase{1, false, 0, position, 1.5},
                                         RuleCase{1, false, 0, position, 0}, RuleCase{2, false, 0, position, 1},
                                         RuleCase{2, true, 0, position, 1}, RuleCase{2, false, 0, gate, 1},
                                         RuleCase{2, true, 0, gate, 0.5}, RuleCase{2, false, 0, choice_gate, 0.5},
                                         RuleCase{2, false, 0.2, position, 1}, RuleCase{2, true, 0.3, position, 1},
                                         RuleCase{2, false, 0.3, choice_gate, 0.5}, RuleCase{2, false, 0, position, 0}));

}  // namespace
}  // namespace smlp
