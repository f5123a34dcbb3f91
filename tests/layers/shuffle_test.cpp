// BASE's shuffle over the ranks of this program: what it moves, that it comes back, its gradients.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/error.h"
#include "layers/token_shuffle.h"
#include "tests/comm/ranks.h"
#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

using test::TinyModel;

// Rows 1000 · rank + 1, 1000 · rank + 2, …, [12, 2].
struct Rows {
  Rows() {
    c.sequences = 3;
    c.length = 4;
    c.seed = 7;
    c.first_sequence = 3 * test::world().rank();
    exchange.begin(c);
    std::vector<double> values;
    for (int i = 1; i <= 12; ++i) values.insert(values.end(), {1000.0 * test::world().rank() + i, 0.5});
    test::write(*backend, rows, values);
  }
  std::vector<double> mixed_at(std::int64_t step) {
    c.step = step;
    shuffle.draw(c);
    shuffle.mix(c, rows, mixed);
    return test::read(*backend, mixed);
  }

  std::unique_ptr<Backend> backend = make_cpu_backend();
  test::Memory memory{*backend};
  Arena scratch{*backend};
  std::unique_ptr<Communicator> ranks = test::world().split(0, test::world().rank());
  ExpertExchange exchange{*ranks, 4};
  TokenShuffle shuffle{"layer", true, exchange};
  Context c{*backend, scratch};
  TensorView rows = memory.take({12, 2}, DType::f64), mixed = memory.take({12, 2}, DType::f64);
};

TEST(Shuffle, DealsRowsOfEveryRankToEveryRankAndBringsThemBack) {
  Rows r;
  const int ranks = test::world().size();
  const auto mixed = r.mixed_at(1);
  std::vector<double> seen(static_cast<std::size_t>(1000 * ranks + 13), 0);
  std::vector<int> from(static_cast<std::size_t>(ranks), 0);
  for (std::size_t i = 0; i < 12; ++i) {
    seen.at(static_cast<std::size_t>(mixed[2 * i])) += 1;
    EXPECT_EQ(mixed[2 * i + 1], 0.5) << "whole rows move";
    ++from.at(static_cast<std::size_t>(mixed[2 * i]) / 1000);
  }
  for (const int count : from) EXPECT_EQ(count, 12 / ranks);
  test::world().all_reduce_host(seen, Reduce::sum);
  for (int rank = 0; rank < ranks; ++rank) {
    for (std::size_t i = 1; i <= 12; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(1000 * rank) + i], 1) << "each row once";
  }
  const TensorView back = r.memory.take({12, 2}, DType::f64);
  r.shuffle.unmix(r.c, r.mixed, back);
  EXPECT_EQ(test::read(*r.backend, back), test::read(*r.backend, r.rows));
  EXPECT_EQ(r.mixed_at(1), mixed) << "a function of seed, step and place";
  EXPECT_NE(r.mixed_at(2), mixed);
}

TEST(Shuffle, RefusesRowsThatCannotBeDealtOutEvenly) {
  Rows r;
  r.c.sequences = 3;
  r.c.length = 3;
  r.exchange.begin(r.c);
  EXPECT_THROW(r.shuffle.draw(r.c), Error) << "9 rows";
  r.c.length = 4;
  r.c.sequences = test::world().rank() == 0 ? 4 : 3;
  r.exchange.begin(r.c);
  EXPECT_THROW(r.shuffle.draw(r.c), Error) << "one rank brings more";
}

ModelConfig shuffled(std::vector<std::string> stack) {
  ModelConfig config = test::tiny_config(std::move(stack));
  config.group_sequences = 2;
  config.dropout = 0.2;
  config.shuffle = true;
  return config;
}

double loss_of_all(TinyModel& m) {
  double loss = m.forward_loss();
  test::world().all_reduce_host({&loss, 1}, Reduce::sum);
  return loss;
}

// An element of every rank's slice, or copy, moved at once: the loss changes by what the ranks' gradients add up to.
void check_gradients(const ModelConfig& config) {
  auto backend = make_cpu_backend();
  const auto experts = test::world().split(0, test::world().rank());
  TinyModel m(config, *backend, *experts, DType::f64);
  const std::int64_t each = 4;
  const auto batch = test::random_batch(config, each * test::world().size(), 11);
  m.loss_scale = 1.0 / static_cast<double>(batch.tokens.size());
  m.load(batch, test::world().rank() * each, each);
  loss_of_all(m);
  m.backward();
  for (auto& parameter : m.store.parameters()) {
    auto values = test::read(*backend, parameter.value);
    const auto gradients = test::read(*backend, parameter.grad);
    const std::size_t at = values.size() / 2;
    const double here = values[at], h = 1e-4;
    const auto moved = [&](double by) {
      values[at] = here + by;
      test::write(*backend, parameter.value, values);
      return loss_of_all(m);
    };
    const double difference = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
    moved(0);
    double claimed = gradients[at];
    test::world().all_reduce_host({&claimed, 1}, Reduce::sum);
    EXPECT_NEAR(claimed, difference, 1e-8 * (1 + std::abs(difference))) << parameter.name;
  }
}

TEST(Shuffle, HasTheGradientsOfItsLoss) {
  check_gradients(shuffled({"base"}));
}

TEST(Shuffle, ChangesTheAssignmentInTrainingAndNothingAtEvaluation) {
  auto backend = make_cpu_backend();
  const auto experts = test::world().split(0, test::world().rank());
  ModelConfig config = shuffled({"transformer", "base"});
  config.dropout = 0;
  TinyModel with(config, *backend, *experts, DType::f64);
  config.shuffle = false;
  TinyModel without(config, *backend, *experts, DType::f64);
  const auto batch = test::random_batch(config, 4 * test::world().size(), 11);
  for (const Mode mode : {Mode::training, Mode::evaluation}) {
    for (auto* m : {&with, &without}) {
      m->c.mode = mode;
      m->loss_scale = 1;
      m->load(batch, 4 * test::world().rank(), 4);
    }
    if (mode == Mode::training) {
      EXPECT_NE(loss_of_all(with), loss_of_all(without));
    } else {
      EXPECT_EQ(loss_of_all(with), loss_of_all(without));
    }
  }
}

}  // namespace
}  // namespace smlp
