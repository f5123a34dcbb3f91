// Gradients of gates and of the losses they add, and what must not change them: ranks, micro-batches.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/routing/router_bench.h"

namespace smlp {
namespace {

using test::RouterBench;
using test::gshard_settings;
using test::switch_settings;

constexpr std::int64_t experts = 4, width = 5, group = 6;

struct Pass {
  double loss = 0;
  std::vector<double> dx, dweight;
};

// L = sum over sent (token, expert) of weight · upstream[token, expert] / rows + auxiliary losses. The rows are cut
// into calls of `at_once` rows, as ranks or micro-batches would.
Pass run(RouterBench& b, const RouterSettings& settings, const std::vector<double>& values, std::int64_t at_once,
         double other_layers = 0) {
  Backend& backend = *b.backend;
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / width;
  const auto upstream = test::random_values(rows * experts, 17);
  Pass pass;
  b.store.zero_grad(backend);
  for (std::int64_t first = 0; first < rows; first += at_once) {
    const TensorView x = b.rows({values.begin() + first * width, values.begin() + (first + at_once) * width}, width);
    RouteCall call = b.call(group);
    call.first_row = first;
    b.with_losses(call, at_once / group);
    backend.fill(call.auxiliary, other_layers);  // what layers before this one have added
    backend.fill(call.row_scale, 1 / static_cast<double>(rows));
    const RoutePlan plan = b.router->plan(call, x);
    std::vector<std::int32_t> token_of_slot(static_cast<std::size_t>(plan.slots()));
    backend.download(plan.token_of_slot, token_of_slot.data());
    const auto weights = test::read(backend, plan.weight);
    std::vector<double> dweight(weights.size(), 0);
    std::size_t slot = 0;
    for (std::size_t e = 0; e < experts; ++e) {
      for (std::int64_t i = 0; i < plan.rows_of_expert[e]; ++i, ++slot) {
        if (token_of_slot[slot] < 0) continue;
        dweight[slot] = upstream[static_cast<std::size_t>(first + token_of_slot[slot]) * experts + e] / static_cast<double>(rows);
        pass.loss += weights[slot] * dweight[slot];
      }
    }
    const auto per_group = test::read(backend, call.auxiliary);
    pass.loss += settings.softmax.auxiliary.total(per_group, group) / static_cast<double>(rows);
    const TensorView dw = b.memory.take({plan.slots()}, DType::f64), dx = b.memory.take(x.shape, DType::f64);
    const TensorView residual = b.memory.take(x.shape, DType::f64);
    test::write(backend, dw, dweight);
    backend.fill(residual, 0.5);
    b.router->backward(call, plan, dw, residual, dx);
    for (const double d : test::read(backend, dx)) pass.dx.push_back(d - 0.5);
    b.router->backward(call, plan, dw, {}, dx);  // without a residual; the weight's gradient adds up
    const auto alone = test::read(backend, dx);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      EXPECT_NEAR(alone[i], pass.dx[pass.dx.size() - alone.size() + i], 1e-13);
    }
  }
  pass.dweight = test::read(backend, b.store.find("layer.router.weight").grad);
  for (double& d : pass.dweight) d /= 2;
  return pass;
}

struct Case {
  const char* name;
  RouterSettings settings;
  std::int64_t layers = 1;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](const char* name, RouterSettings settings, auto change, std::int64_t layers = 1) {
    settings.softmax.auxiliary.balance_weight = 0.7;
    change(settings.softmax);
    all.push_back({name, settings, layers});
  };
  const auto nothing = [](SoftmaxSettings&) {};
  add("switch", switch_settings(), nothing);
  add("switch_dropless", switch_settings(), [](auto& s) { s.training.factor = 0; });
  add("switch_scarce", switch_settings(), [](auto& s) { s.training.factor = 0.5; });
  add("switch_z", switch_settings(), [](auto& s) { s.auxiliary.z_weight = 0.3; });
  add("switch_z_alone", switch_settings(), [](auto& s) {
    s.auxiliary.balance_weight = 0;
    s.auxiliary.z_weight = 0.3;
  });
  add("switch_neg_log_average", switch_settings(), [](auto& s) {
    s.auxiliary.negative_log = true;
    s.auxiliary.average_layers = true;
  }, 3);
  add("switch_jitter", switch_settings(), [](auto& s) { s.jitter = 0.1; });
  add("gshard", gshard_settings(), nothing);
  add("gshard_scarce", gshard_settings(), [](auto& s) { s.training.factor = 0.5; });
  add("gshard_before", gshard_settings(SecondChoice::all, true), [](auto& s) { s.training.factor = 0.5; });
  add("gshard_before_threshold", gshard_settings(SecondChoice::threshold, true), [](auto& s) { s.second_threshold = 0.35; });
  add("gshard_random_all", gshard_settings(SecondChoice::random), [](auto& s) { s.auxiliary.every_choice = true; });
  add("gshard_sampling_bpr_jitter", gshard_settings(SecondChoice::sampling), [](auto& s) {
    s.order = PlaceOrder::gate;
    s.jitter = 0.05;
    s.first = FirstChoice::sampling;
    s.training.factor = 0.5;
  });
  add("switch_sigmoid_z", switch_settings(), [](auto& s) {
    s.gate = GateKind::sigmoid;
    s.auxiliary.z_weight = 0.3;
  });
  add("gshard_sigmoid_neg_log", gshard_settings(), [](auto& s) {
    s.gate = GateKind::sigmoid;
    s.auxiliary.negative_log = true;
    s.training.factor = 0.5;
  });
  add("gshard_never", gshard_settings(), [](auto& s) { s.normalise = Normalise::never; });
  add("gshard_sinkhorn_z", gshard_settings(), [](auto& s) {
    s.first = FirstChoice::sinkhorn;
    s.auxiliary.z_weight = 0.3;
  });
  add("gshard_bias", gshard_settings(), [](auto& s) {
    s.bias_rate = 0.2;
    s.gate = GateKind::sigmoid;
    s.auxiliary.every_choice = true;
  });
  return all;
}

class Gradients : public testing::TestWithParam<Case> {};

TEST_P(Gradients, MatchDifferences) {
  const auto& p = GetParam();
  RouterBench b;
  b.make(p.settings, experts, width, p.layers);
  auto values = test::random_values(2 * group * width, 3);
  const TensorView weight = b.store.find("layer.router.weight").value;
  const std::vector<std::int32_t> bias = {2, -1, 0, 1};
  if (b.router->bias() != nullptr) b.backend->upload(bias.data(), b.router->bias()->view);
  auto matrix = test::random_values(experts * width, 4);
  test::write(*b.backend, weight, matrix);
  const double other_layers = 0.4;
  const Pass claimed = run(b, p.settings, values, 2 * group, other_layers);
  const double h = 1e-4;
  const auto compare = [&](const char* what, std::vector<double>& at, const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < at.size(); ++i) {
      const double here = at[i];
      const auto moved = [&](double by) {
        at[i] = here + by;
        test::write(*b.backend, weight, matrix);
        return run(b, p.settings, values, 2 * group, other_layers).loss;
      };
      const double difference = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
      at[i] = here;
      ASSERT_NEAR(gradient[i], difference, 1e-9 * (1 + std::abs(difference))) << what << "[" << i << "]";
    }
    test::write(*b.backend, weight, matrix);
  };
  // The balance loss is meant to send no gradient through f, which is constant between ties: differences agree.
  compare("x", values, claimed.dx);
  compare("weight", matrix, claimed.dweight);
}

TEST_P(Gradients, DoNotDependOnHowTheBatchIsCut) {
  const auto& p = GetParam();
  RouterBench b;
  b.make(p.settings, experts, width, p.layers);
  const auto values = test::random_values(6 * group * width, 5);
  const Pass whole = run(b, p.settings, values, 6 * group);
  for (const std::int64_t groups : {1, 2, 3}) {
    const Pass cut = run(b, p.settings, values, groups * group);
    EXPECT_NEAR(cut.loss, whole.loss, 1e-13);
    for (std::size_t i = 0; i < whole.dx.size(); ++i) ASSERT_NEAR(cut.dx[i], whole.dx[i], 1e-14);
    for (std::size_t i = 0; i < whole.dweight.size(); ++i) ASSERT_NEAR(cut.dweight[i], whole.dweight[i], 1e-14);
  }
}

INSTANTIATE_TEST_SUITE_P(Softmax, Gradients, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(AuxiliaryLoss, IsOneInPerfectBalanceAndUpToTheNumberOfExpertsOutOfIt) {
  RouterBench b;
  b.make(switch_settings(), experts, experts);
  b.identity_weight();
  const auto balance = [&](double sharpness, bool even) {
    std::vector<double> logits(8 * experts, 0);
    for (std::size_t s = 0; s < 8; ++s) logits[s * experts + (even ? s % experts : 0)] = sharpness;
    RouteCall call = b.call(8);
    b.with_losses(call, 1);
    b.router->plan(call, b.rows(logits, experts));
    return test::read(*b.backend, call.auxiliary)[0];
  };
  EXPECT_NEAR(balance(3, true), 1, 1e-12);
  EXPECT_NEAR(balance(60, false), experts, 1e-12);
}

TEST(AuxiliaryLoss, MultipliesMeanGatesByFrequenciesNotCountsByCounts) {
  // FastMoE's GShard loss squares the counts of one rank's tokens: too small where several ranks share a group's work,
  // and without a gradient. Here two experts have the same frequencies, and only the gates tell the losses apart.
  RouterBench b;
  b.make(switch_settings(), 2, 2);
  b.identity_weight();
  const auto balance = [&](double sure) {
    RouteCall call = b.call(4);
    b.with_losses(call, 1);
    b.router->plan(call, b.rows({sure, 0, sure, 0, sure, 0, 0, 1}, 2));
    return test::read(*b.backend, call.auxiliary)[0];
  };
  EXPECT_GT(balance(5), balance(1) + 0.1);
  const double gate = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(balance(1), 2 * ((3 * gate + 1 - gate) / 4 * 0.75 + (3 * (1 - gate) + gate) / 4 * 0.25), 1e-12);
}

TEST(AuxiliaryLoss, TotalsByTokensAndTurnsOffByWeight) {
  const std::vector<double> per_group = {1.5, 4, 2.5, 8};
  AuxiliaryLoss loss{.balance_weight = 0.1, .z_weight = 0.01};
  EXPECT_NEAR(loss.total(per_group, 10), 10 * (0.1 * 4 + 0.01 * 12), 1e-12);
  loss.negative_log = true;
  EXPECT_NEAR(loss.total(per_group, 10), 10 * (0.1 * -(std::log(1.5) + std::log(2.5)) + 0.01 * 12), 1e-12);
  EXPECT_EQ((AuxiliaryLoss{.balance_weight = 0}).total(per_group, 10), 0);
}

}  // namespace
}  // namespace smlp
