// Softmax gates: capacities, noise, evaluation, ties, types, and the mistakes that other ports made.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
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

TEST(Capacity, FollowsTheRuleOfEachReference) {
  using Rule = Capacity::Rule;
  const auto places = [](Capacity capacity, std::int64_t tokens, std::int64_t experts, std::int64_t choices) {
    return capacity.of(tokens, experts, choices);
  };
  EXPECT_EQ(places({}, 6, 3, 1), 2);
  EXPECT_EQ(places({}, 7, 3, 2), 6);  // 2 · ceil(7 / 3)
  EXPECT_EQ(places({.factor = 1.25}, 100, 8, 1), 16);  // int(1.25 · 13)
  EXPECT_EQ(places({.rule = Rule::mesh, .factor = 1.25, .minimum = 4}, 1024, 32, 1), 40);
  EXPECT_EQ(places({.rule = Rule::mesh, .factor = 2, .minimum = 4}, 64, 64, 2), 4);
  EXPECT_EQ(places({.rule = Rule::mesh, .factor = 2, .minimum = 4}, 1024, 32, 2), 64);  // whatever the choices
  EXPECT_EQ(places({.rule = Rule::megatron, .factor = 1.25}, 100, 8, 2), 32);  // 2 · ceil(12.5 · 1.25)
  EXPECT_EQ(places({.fraction = 0.25}, 1023, 32, 2), 256);
  // fairseq's README means 48 of 1,024 tokens by 0.046875; it is what the fraction gives, and not 1,024 / 48.
  EXPECT_EQ(places({.fraction = 0.046875}, 1024, 512, 2), 48);
  EXPECT_EQ(places({.factor = 0.1}, 4, 4, 1), 1);   // never none at all
  EXPECT_EQ(places({.factor = 90}, 12, 4, 1), 12);  // a token takes one place at most
  EXPECT_FALSE((Capacity{.factor = 0}).limited());
}

TEST(SoftmaxRouter, FixedCapacityNeedsNoCountsAndDroplessDoes) {
  RouterBench b;
  Router& fixed = b.make(switch_settings(), 4, 4);
  EXPECT_EQ(fixed.slots_of_group(true, 10), 3);
  EXPECT_FALSE(fixed.slots_of_group(false, 10).has_value());
  RouteCall call = b.call(10);
  const RoutePlan plan = fixed.plan(call, b.rows(test::random_values(20 * 4, 1), 4));
  EXPECT_EQ(plan.rows_of_expert, (std::vector<std::int64_t>{6, 6, 6, 6}));
  b.decision(plan, 20);

  RouterBench free;
  RouterSettings settings = switch_settings();
  settings.softmax.training.factor = 0;
  Router& dropless = free.make(settings, 4, 4);
  EXPECT_FALSE(dropless.slots_of_group(true, 10).has_value());
  RouteCall other = free.call(10);
  const RoutePlan whole = dropless.plan(other, free.rows(test::random_values(20 * 4, 1), 4));
  EXPECT_TRUE(whole.no_empty_slot);
  EXPECT_EQ(whole.slots(), 20);
}

TEST(SoftmaxRouter, EvaluationDropsNothingUnlessAskedTo) {
  const auto logits = test::random_values(23 * 3, 4);
  for (const std::size_t choices : {1u, 2u}) {
    RouterSettings settings = choices == 1 ? switch_settings() : gshard_settings(SecondChoice::sampling);
    settings.softmax.first = FirstChoice::sampling;
    settings.softmax.jitter = 0.5;
    RouterBench b;
    b.make(settings, 3, 3);
    b.identity_weight();
    const Decision d = b.decide(b.call(10, false), b.rows(logits, 3));
    const Plain plain = plainly(logits, 3, choices, 1e9, false, 0, PlaceOrder::position);
    EXPECT_EQ(d.dropped, 0);
    for (std::size_t s = 0; s < 23; ++s) {
      for (std::size_t e = 0; e < 3; ++e) {
        ASSERT_EQ(d.sent(s, e), plain.weight[s][e] == plain.weight[s][e]) << "noise at evaluation";
      }
    }
  }
  // 23 tokens in groups of 10: the last group of 3 has its own capacity.
  RouterSettings limited = switch_settings();
  limited.softmax.evaluation.fraction = 0.2;
  RouterBench b;
  b.make(limited, 3, 3);
  b.identity_weight();
  std::vector<double> same;
  for (int s = 0; s < 23; ++s) same.insert(same.end(), {2, 1, 0});
  const Decision d = b.decide(b.call(10, false), b.rows(same, 3));
  EXPECT_EQ(d.tokens_of_expert[0], (std::vector<std::int32_t>{0, 1, 10, 11, 20}));
  EXPECT_EQ(d.dropped, 18);
}

// Places in random order were drawn by where a token lay in its batch: another number of ranks had another loss.
TEST(SoftmaxRouter, EvaluationDrawsNoOrderOfPlaces) {
  RouterSettings settings = gshard_settings();
  settings.softmax.order = PlaceOrder::random;
  settings.softmax.evaluation.factor = 1;
  RouterBench b;
  b.make(settings, 4, 4);
  const TensorView x = b.rows(test::random_values(12 * 4, 2), 4);
  const Decision first = b.decide(b.call(12, false), x);
  EXPECT_GT(first.dropped, 0);
  RouteCall elsewhere = b.call(12, false);
  elsewhere.first_row = 36;
  elsewhere.step = 6;
  EXPECT_TRUE(b.decide(elsewhere, x) == first);
}

TEST(SoftmaxRouter, AGroupIsRoutedAlikeWhoeverElseIsThere) {
  for (const auto order : {PlaceOrder::position, PlaceOrder::gate, PlaceOrder::random, PlaceOrder::choice_gate}) {
    RouterSettings settings = gshard_settings(SecondChoice::random);
    settings.softmax.order = order;
    settings.softmax.jitter = 0.2;
    settings.softmax.first = FirstChoice::sampling;
    RouterBench b;
    b.make(settings, 4, 4);
    const TensorView x = b.rows(test::random_values(36 * 4, 2), 4);
    const Decision together = b.decide(b.call(12), x);
    for (std::int64_t g = 0; g < 3; ++g) {
      RouteCall one = b.call(12);
      one.first_row = g * 12;
      const Decision apart = b.decide(one, x.row_range(g * 12, 12));
      for (std::size_t s = 0; s < 12; ++s) {
        for (std::size_t e = 0; e < 4; ++e) {
          const std::size_t there = static_cast<std::size_t>(g) * 12 + s;
          ASSERT_EQ(apart.sent(s, e), together.sent(there, e)) << "group " << g << ", token " << s;
          if (apart.sent(s, e)) {
            ASSERT_EQ(apart.weight[s][e], together.weight[there][e]);
          }
        }
      }
    }
    RouteCall later = b.call(12);
    later.step = 6;
    EXPECT_FALSE(b.decide(later, x) == together) << "each step draws anew";
  }
}

TEST(SoftmaxRouter, TiesGoToTheLowerIndexAndNothingBreaksOnWhatIsNotANumber) {
  for (const std::size_t choices : {1u, 2u}) {
    for (const auto order : {PlaceOrder::position, PlaceOrder::gate, PlaceOrder::choice_gate}) {
      RouterSettings settings = choices == 1 ? switch_settings() : gshard_settings();
      settings.softmax.order = order;
      RouterBench b;
      b.make(settings, 4, 4);
      b.identity_weight();
      const Decision d = b.decide(b.call(8), b.rows(std::vector<double>(32, 0.25), 4));
      ASSERT_EQ(d.tokens_of_expert[0].size(), 2 * choices);
      EXPECT_EQ(d.tokens_of_expert[0].front(), 0);
      EXPECT_EQ(d.tokens_of_expert[1].size(), choices == 1 ? 0u : 4u);
      EXPECT_TRUE(d.tokens_of_expert[2].empty() && d.tokens_of_expert[3].empty());
      auto broken = test::random_values(32, 5);
      broken[0] = broken[9] = std::nan("");
      for (std::size_t i = 16; i < 20; ++i) broken[i] = std::nan("");
      b.decide(b.call(8), b.rows(broken, 4));
    }
  }
}

TEST(SoftmaxRouter, SamplesTheSecondExpertByItsGate) {
  // Logits 9, log 3, log 1, …: the first is clear, the second three times as often expert 1 as expert 2.
  RouterBench b;
  RouterSettings settings = gshard_settings(SecondChoice::sampling);
  settings.softmax.training.factor = 0;
  b.make(settings, 3, 3);
  b.identity_weight();
  std::vector<double> logits;
  for (int s = 0; s < 4000; ++s) logits.insert(logits.end(), {9, std::log(3.0), 0});
  const Decision d = b.decide(b.call(4000), b.rows(logits, 3));
  EXPECT_EQ(d.tokens_of_expert[0].size(), 4000u);
  EXPECT_NEAR(static_cast<double>(d.tokens_of_expert[1].size()), 3000, 5 * std::sqrt(750.0));

  // random: kept with probability gate / threshold.
  for (const double threshold : {0.5, 0.2}) {
    RouterBench r;
    RouterSettings random = gshard_settings(SecondChoice::random);
    random.softmax.training.factor = 0;
    random.softmax.second_threshold = threshold;
    r.make(random, 2, 2);
    r.identity_weight();
    std::vector<double> two;
    for (int s = 0; s < 4000; ++s) two.insert(two.end(), {std::log(9.0), 0});  // gates 0.9, 0.1
    const Decision kept = r.decide(r.call(4000), r.rows(two, 2));
    const double wanted = 4000 * 0.1 / threshold;
    EXPECT_NEAR(static_cast<double>(kept.tokens_of_expert[1].size()), wanted, 5 * std::sqrt(wanted)) << threshold;
    EXPECT_EQ(kept.dropped, 0) << "a declined choice is not dropped";
  }
  RouterBench none;
  none.make(gshard_settings(SecondChoice::none), 2, 2);
  none.identity_weight();
  const Decision alone = none.decide(none.call(4), none.rows({1, 0, 1, 0, 1, 0, 0, 1}, 2));
  EXPECT_EQ(alone.tokens_of_expert[0].size() + alone.tokens_of_expert[1].size(), 4u);
  EXPECT_NEAR(alone.weight[0][0], 1, 1e-15);
}

TEST(SoftmaxRouter, RandomOrderServesTheLargestNumbersAndDiffersFromStepToStep) {
  RouterSettings settings = switch_settings();
  settings.softmax.order = PlaceOrder::random;
  RouterBench b;
  b.make(settings, 4, 4);
  b.identity_weight();
  std::vector<double> same;
  for (int s = 0; s < 400; ++s) same.insert(same.end(), {1, 0, 0, 0});
  const TensorView x = b.rows(same, 4);
  RouteCall call = b.call(400);
  const auto first = b.decide(call, x).tokens_of_expert[0];
  EXPECT_EQ(first.size(), 100u);
  EXPECT_NEAR(static_cast<double>(std::count_if(first.begin(), first.end(), [](auto t) { return t < 200; })), 50, 25);
  RouteCall later = b.call(400);
  later.step = 6;
  EXPECT_NE(b.decide(later, x).tokens_of_expert[0], first);
}

TEST(SoftmaxRouter, AcceptsNoRowsAtAll) {
  for (const bool training : {true, false}) {
    for (const bool two : {true, false}) {
      RouterBench b;
      Router& router = b.make(two ? gshard_settings() : switch_settings(), 3, 8);
      RouteCall call = b.call(0, training);
      const TensorView nothing = b.rows(std::vector<double>(8, 0), 8).row_range(0, 0);
      const RoutePlan plan = router.plan(call, nothing);
      EXPECT_EQ(plan.slots(), 0);
      router.backward(call, plan, plan.weight, nothing, nothing);
    }
  }
  RouterBench b;
  EXPECT_THROW(b.make(gshard_settings(), 1, 8), Error);
}

TEST(SoftmaxRouter, NarrowTypesDecideByTheirWideLogits) {
  const auto values = test::random_values(40 * 8, 6);
  RouterBench exact;
  exact.make(gshard_settings(), 4, 8);
  RouterBench narrow(DType::bf16);
  narrow.make(gshard_settings(), 4, 8);
  const TensorView x = narrow.rows(values, 8);
  test::write(*exact.backend, exact.store.find("layer.router.weight").value,
              test::read(*narrow.backend, narrow.store.find("layer.router.weight").value));
  const Decision wanted = exact.decide(exact.call(20), exact.rows(test::read(*narrow.backend, x), 8));
  const Decision got = narrow.decide(narrow.call(20), x);
  EXPECT_EQ(got.tokens_of_expert, wanted.tokens_of_expert);
  for (std::size_t s = 0; s < 40; ++s) {
    for (std::size_t e = 0; e < 4; ++e) {
      if (got.sent(s, e)) {
        EXPECT_NEAR(got.weight[s][e], wanted.weight[s][e], 4e-3);
      }
    }
  }
}

TEST(SoftmaxRouter, JitterMultipliesAndDoesNotAdd) {
  // FastMoE's gate adds U(1 ± eps), which moves every logit by about one; a product leaves zeros alone.
  RouterBench b;
  const TensorView x = b.rows({0, 2, -4, 1e6, 1, 1, 1, 1}, 4), out = b.memory.take({2, 4}, DType::f64);
  b.backend->jitter(x, 0.1, 7, 5, out);
  const auto in = test::read(*b.backend, x), got = test::read(*b.backend, out);
  EXPECT_EQ(got[0], 0);
  for (std::size_t i = 1; i < 8; ++i) {
    EXPECT_NE(got[i], in[i]);
    EXPECT_GE(got[i] / in[i], 0.9);
    EXPECT_LE(got[i] / in[i], 1.1);
  }
  std::vector<double> ones(40000, 1);
  const TensorView many = b.rows(ones, 4), shaken = b.memory.take({10000, 4}, DType::f64);
  b.backend->jitter(many, 0.1, 7, 0, shaken);
  const auto all = test::read(*b.backend, shaken);
  const double mean = std::accumulate(all.begin(), all.end(), 0.0) / 40000;
  EXPECT_NEAR(mean, 1, 5 * 0.1 / std::sqrt(3 * 40000.0));
  EXPECT_LT(*std::min_element(all.begin(), all.end()), 0.901);
  EXPECT_GT(*std::max_element(all.begin(), all.end()), 1.099);
  EXPECT_EQ(std::vector<double>(all.begin() + 20, all.begin() + 24), [&] {
    b.backend->jitter(many.row_range(0, 1), 0.1, 7, 5, shaken.row_range(0, 1));
    const auto again = test::read(*b.backend, shaken.row_range(0, 1));
    return again;
  }()) << "a function of the place in the global batch";
}

}  // namespace
}  // namespace smlp
