// What Megatron-LM's router adds to the gates: sigmoids, biases that even the experts out, and Sinkhorn's shares.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "tensor/sinkhorn.h"
#include "tests/routing/router_bench.h"

namespace smlp {
namespace {

using test::Decision;
using test::RouterBench;
using test::gshard_settings;
using test::switch_settings;
using test::vector_logits;

RouterSettings dropless(RouterSettings settings) {
  settings.softmax.training.factor = 0;
  return settings;
}

Decision decide(const RouterSettings& settings, const std::vector<double>& logits, bool training = true) {
  RouterBench b;
  b.make(settings, 3, 3);
  b.identity_weight();
  const auto tokens = static_cast<std::int64_t>(logits.size() / 3);
  return b.decide(b.call(tokens, training), b.rows(logits, 3));
}

TEST(SigmoidGate, CountsEachExpertByItself) {
  RouterSettings settings = dropless(switch_settings());
  settings.softmax.gate = GateKind::sigmoid;
  const Decision one = decide(settings, vector_logits);
  EXPECT_EQ(one.tokens_of_expert, (std::vector<std::vector<std::int32_t>>{{0, 1, 3, 4}, {2}, {5}}));
  EXPECT_NEAR(one.weight[0][0], .880797, 5e-7);
  EXPECT_NEAR(one.weight[2][1], .574443, 5e-7);
  EXPECT_NEAR(one.weight[5][2], .880797, 5e-7);

  settings = dropless(gshard_settings());
  settings.softmax.gate = GateKind::sigmoid;
  const Decision shared = decide(settings, vector_logits);
  EXPECT_NEAR(shared.weight[0][0], .880797 / (.880797 + .731059), 1e-6);
  EXPECT_NEAR(shared.weight[0][1], .731059 / (.880797 + .731059), 1e-6);
  settings.softmax.normalise = Normalise::never;
  const Decision bare = decide(settings, vector_logits);
  EXPECT_NEAR(bare.weight[4][0], .924142, 5e-7);
  EXPECT_NEAR(bare.weight[4][1], .916827, 5e-7);
}

TEST(SigmoidGate, BalancesByItsSharesOfATokenSoThatPerfectBalanceIsOne) {
  RouterSettings settings = switch_settings();
  settings.softmax.gate = GateKind::sigmoid;
  RouterBench b;
  b.make(settings, 3, 3);
  b.identity_weight();
  const auto balance = [&](const std::vector<double>& logits) {
    RouteCall call = b.call(3);
    b.with_losses(call, 1);
    b.router->plan(call, b.rows(logits, 3));
    return test::read(*b.backend, call.auxiliary)[0];
  };
  EXPECT_NEAR(balance({2, -1, -1, -1, 2, -1, -1, -1, 2}), 1, 1e-12);
  EXPECT_NEAR(balance({60, -60, -60, 60, -60, -60, 60, -60, -60}), 3, 1e-12);
}

TEST(NormaliseNever, LeavesTheGatesOfTwoChoicesAsTheyAre) {
  RouterSettings settings = dropless(gshard_settings());
  settings.softmax.normalise = Normalise::never;
  const Decision d = decide(settings, vector_logits);
  EXPECT_NEAR(d.weight[0][0], .665241, 5e-7);
  EXPECT_NEAR(d.weight[0][1], .244728, 5e-7);
}

TEST(SinkhornRouter, ChoosesByTheLargestShareAndCountsTheBareGate) {
  RouterSettings settings = dropless(gshard_settings());
  settings.softmax.first = FirstChoice::sinkhorn;
  settings.softmax.normalise = Normalise::never;
  const Decision two = decide(settings, vector_logits);
  EXPECT_EQ(two.tokens_of_expert, (std::vector<std::vector<std::int32_t>>{{0, 3, 1}, {1, 0, 2, 3, 4, 5}, {2, 4, 5}}));
  EXPECT_NEAR(two.weight[4][2], std::exp(2.3) / (std::exp(2.5) + std::exp(2.4) + std::exp(2.3)), 1e-12);

  settings = dropless(switch_settings());
  settings.softmax.first = FirstChoice::sinkhorn;
  settings.softmax.gate = GateKind::sigmoid;  // as Megatron does for one choice
  const Decision one = decide(settings, vector_logits);
  EXPECT_EQ(one.tokens_of_expert, (std::vector<std::vector<std::int32_t>>{{0, 3}, {1}, {2, 4, 5}}));
  EXPECT_NEAR(one.weight[4][2], .908877, 5e-7);
  const Decision evaluated = decide(settings, vector_logits, false);
  EXPECT_EQ(evaluated.tokens_of_expert, (std::vector<std::vector<std::int32_t>>{{0, 1, 3, 4}, {2}, {5}}))
      << "a share depends on later tokens: evaluation takes the best";
}

TEST(SinkhornRouter, EvensOutWhatTheBestWouldSendToOneExpert) {
  auto logits = test::random_values(256 * 4, 3);
  for (std::size_t s = 0; s < 256; ++s) logits[4 * s] += 5;
  RouterSettings settings = dropless(switch_settings());
  const auto most = [&] {
    RouterBench b;
    b.make(settings, 4, 4);
    b.identity_weight();
    const Decision d = b.decide(b.call(256), b.rows(logits, 4));
    return std::ranges::max(d.tokens_of_expert, {}, [](const auto& tokens) { return tokens.size(); }).size();
  };
  EXPECT_GT(most(), 250u);
  settings.softmax.first = FirstChoice::sinkhorn;
  EXPECT_LT(most(), 90u);
}

TEST(SinkhornRouter, SharesOutEachGroupApartAndTellsItsRounds) {
  RouterSettings settings = dropless(switch_settings());
  settings.softmax.first = FirstChoice::sinkhorn;
  RouterBench b;
  b.make(settings, 3, 3);
  b.identity_weight();
  std::vector<double> logits = test::random_values(30, 8);
  logits.insert(logits.begin(), vector_logits.begin(), vector_logits.begin() + 15);
  RouteCall both = b.call(5);
  const TensorView x = b.rows(logits, 3);
  const RoutePlan plan = b.router->plan(both, x);
  ASSERT_EQ(plan.rounds.size(), 3);
  std::vector<std::int32_t> rounds(3);
  b.backend->download(plan.rounds, rounds.data());
  const Decision together = b.decision(plan, 15);
  for (std::size_t g = 0; g < 3; ++g) {
    Sinkhorn sinkhorn;
    std::vector<double> shares(15);
    EXPECT_EQ(rounds[g], sinkhorn.scale(std::span(logits).subspan(15 * g, 15), 5, 3, shares));
    const Decision apart = b.decide(b.call(5), x.row_range(static_cast<std::int64_t>(5 * g), 5));
    for (std::size_t s = 0; s < 5; ++s) {
      const auto best = std::max_element(shares.begin() + static_cast<std::ptrdiff_t>(3 * s),
                                         shares.begin() + static_cast<std::ptrdiff_t>(3 * s + 3));
      const auto expert = static_cast<std::size_t>(best - shares.begin()) - 3 * s;
      EXPECT_TRUE(together.sent(5 * g + s, expert) && apart.sent(s, expert)) << "group " << g << ", token " << s;
    }
  }
}

class ExpertBias : public testing::Test {
 protected:
  ExpertBias() {
    settings.softmax.bias_rate = 0.1;
    settings.softmax.gate = GateKind::sigmoid;
  }
  void set(const std::vector<std::int32_t>& values) { b.backend->upload(values.data(), b.router->bias()->view); }
  std::vector<std::int32_t> get() {
    std::vector<std::int32_t> values(3);
    b.backend->download(b.router->bias()->view, values.data());
    return values;
  }
  void make() {
    b.make(settings, 3, 3);
    b.identity_weight();
  }

  RouterSettings settings = dropless(switch_settings());
  RouterBench b;
};

TEST_F(ExpertBias, RanksExpertsAndCountsForNothingElse) {
  make();
  const TensorView x = b.rows(vector_logits, 3);
  EXPECT_EQ(b.decide(b.call(6), x).tokens_of_expert, (std::vector<std::vector<std::int32_t>>{{0, 1, 3, 4}, {2}, {5}}));
  set({-1, 0, 1});
  for (const bool training : {true, false}) {
    const Decision d = b.decide(b.call(6, training), x);
    // 0: .78 .73 .6, 1: .72 .80 .65, 2: .42 .57 .65, 3: .85 .62 .62, 4: .82 .92 1.01, 5: .4 .73 .98
    EXPECT_EQ(d.tokens_of_expert, (std::vector<std::vector<std::int32_t>>{{0, 3}, {1}, {2, 4, 5}}));
    EXPECT_NEAR(d.weight[4][2], .908877, 5e-7) << "the gate without the bias";
  }
}

TEST_F(ExpertBias, IsRankedForBothChoices) {
  settings.tokens = "gshard";
  settings.softmax.second = SecondChoice::all;
  make();
  set({-9, 0, 1});
  const Decision d = b.decide(b.call(6), b.rows(vector_logits, 3));
  EXPECT_TRUE(d.tokens_of_expert[0].empty());
  EXPECT_EQ(d.tokens_of_expert[1].size() + d.tokens_of_expert[2].size(), 12u);
}

TEST_F(ExpertBias, MovesByTheSignOfWhatAnExpertLacksToTheMean) {
  make();
  const auto move = [&](const std::vector<double>& tokens) {
    move_bias(*b.backend, *b.router->bias(), tokens);
    return get();
  };
  EXPECT_EQ(move({4, 1, 1}), (std::vector<std::int32_t>{-1, 1, 1}));
  EXPECT_EQ(move({2, 2, 2}), (std::vector<std::int32_t>{-1, 1, 1})) << "at the mean: nothing to do";
  EXPECT_EQ(move({0, 3, 3}), (std::vector<std::int32_t>{0, 0, 0}));
  EXPECT_EQ(move({1, 2, 4}), (std::vector<std::int32_t>{1, 1, -1})) << "the mean is 7 / 3";
  EXPECT_EQ(move({0, 0, 0}), (std::vector<std::int32_t>{1, 1, -1}));
  EXPECT_THROW(move({1, 2}), Error);
}

TEST_F(ExpertBias, EvensTheExpertsOutInTime) {
  settings.softmax.bias_rate = 0.01;
  make();
  auto logits = test::random_values(300 * 3, 5);
  for (std::size_t s = 0; s < 300; ++s) logits[3 * s] += 1.5;
  const TensorView x = b.rows(logits, 3);
  std::vector<double> loads(3);
  for (int step = 0; step < 60; ++step) {
    const Decision d = b.decide(b.call(300), x);
    for (std::size_t e = 0; e < 3; ++e) loads[e] = static_cast<double>(d.tokens_of_expert[e].size());
    if (step == 0) {
      EXPECT_GT(loads[0], 200);
    }
    move_bias(*b.backend, *b.router->bias(), loads);
  }
  for (const double load : loads) EXPECT_NEAR(load, 100, 12);
}

TEST_F(ExpertBias, IsATableOfTheStoreThatStartsAtZeroAndOnlyWhereItIsAskedFor) {
  make();
  ASSERT_EQ(b.store.tables().size(), 1u);
  EXPECT_EQ(b.store.tables()[0].name, "layer.router.bias");
  EXPECT_TRUE(b.store.tables()[0].moves);
  EXPECT_EQ(get(), (std::vector<std::int32_t>{0, 0, 0}));
  RouterBench without;
  EXPECT_EQ(without.make(switch_settings(), 3, 3).bias(), nullptr);
  EXPECT_TRUE(without.store.tables().empty());
}

}  // namespace
}  // namespace smlp
