// No logit moves with later tokens, in any kind of model but the leaky one.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

using test::Batch;
using test::random_batch;
using test::tiny_config;
using test::TinyModel;

// What a causality test runs: a stack and how its channels are routed.
struct CausalCase {
  std::vector<std::string> stack;
  std::string channels = "deterministic";
  std::size_t first = 0;  // logits before it take no part: partial prediction moves the prefix's own
};

ModelConfig config_of(const CausalCase& p) {
  ModelConfig config = tiny_config(p.stack);
  config.channels = p.channels;
  config.allow_leak = true;
  return config;
}

// By how much logits move with the tokens after position t of the second sequence: those that may, and those that may not.
struct Moved {
  double later = 0, earlier = 0;
};

Moved moved_by_tokens_after(TinyModel& m, const Batch& batch, std::size_t t) {
  const auto context = static_cast<std::size_t>(m.config.context), width = static_cast<std::size_t>(m.config.vocabulary);
  m.load(batch, 0, 3);
  const auto before = m.logits();
  Batch changed = batch;
  for (std::size_t later = t + 1; later < context; ++later) {
    auto& token = changed.tokens[context + later];
    token = static_cast<std::int32_t>((token + 3) % m.config.vocabulary);
  }
  m.load(changed, 0, 3);
  const auto after = m.logits();
  Moved moved;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const std::size_t row = i / width;
    double& most = row > context + t && row < 2 * context ? moved.later : moved.earlier;
    most = std::max(most, std::abs(after[i] - before[i]));
  }
  return moved;
}

class Causality : public testing::TestWithParam<CausalCase> {};

TEST_P(Causality, LaterTokensMoveNoEarlierLogit) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel m(config_of(GetParam()), *backend, *solo, DType::f64);
  m.c.mode = Mode::evaluation;
  EXPECT_TRUE(m.model->causal());
  const Batch batch = random_batch(m.config, 3, 3);
  for (std::size_t t = GetParam().first; t + 1 < static_cast<std::size_t>(m.config.context); ++t) {
    const Moved moved = moved_by_tokens_after(m, batch, t);
    EXPECT_LE(moved.earlier, 1e-12) << "tokens after " << t;
    EXPECT_GT(moved.later, 1e-3);
  }
}

TEST_P(Causality, AShorterSequenceEqualsThePaddedOne) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel m(config_of(GetParam()), *backend, *solo, DType::f64);
  m.c.mode = Mode::evaluation;
  const Batch batch = random_batch(m.config, 2, 3);
  m.load(batch, 0, 2);
  const auto padded = m.logits();
  m.load(batch, 0, 2, 4);
  const auto shorter = m.logits();
  const auto width = static_cast<std::size_t>(m.config.vocabulary);
  for (std::size_t s = 0; s < 2; ++s) {
    for (std::size_t i = 0; i < 4 * width; ++i) {
      ASSERT_NEAR(shorter[s * 4 * width + i], padded[s * 6 * width + i], 1e-12);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Causality,
                         testing::Values(CausalCase{{"gmlp", "gmlp"}}, CausalCase{{"transformer", "transformer"}},
                                         CausalCase{{"gmlp", "smlp", "smlp"}},
                                         CausalCase{{"gmlp", "smlp"}, "partial"}, CausalCase{{"transformer", "base"}},
                                         CausalCase{{"transformer", "hash"}}, CausalCase{{"transformer", "switch"}},
                                         CausalCase{{"transformer", "gshard"}},
                                         CausalCase{{"gmlp", "gmlp-token-moe", "gmlp-token-moe"}}),
                         [](const auto& info) { return test::test_name(info.param.stack, info.param.channels); });

TEST(LeakyModel, FailsCausality) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  TinyModel m(config_of({{"gmlp", "smlp"}, "leaky"}), *backend, *solo, DType::f64);
  m.c.mode = Mode::evaluation;
  EXPECT_FALSE(m.model->causal());
  const Moved moved = moved_by_tokens_after(m, random_batch(m.config, 3, 3), 1);
  EXPECT_GT(moved.earlier, 1e-3);
}

// Generation padded the text of such a model, and what it padded with took places.
TEST(LimitedPlaces, MakeAModelOfWhichLaterTokensMoveLogits) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  for (const char* kind : {"gshard", "smlp"}) {
    ModelConfig config = tiny_config({"transformer", kind});
    config.router.tokens = "gshard";
    EXPECT_TRUE(TinyModel(config, *backend, *solo, DType::f64).model->causal());
    config.router.softmax.evaluation.factor = 0.5;
    TinyModel m(config, *backend, *solo, DType::f64);
    m.c.mode = Mode::evaluation;
    EXPECT_FALSE(m.model->causal());
    double moved = 0;
    for (const std::size_t t : {0, 1, 2, 3}) moved = std::max(moved, moved_by_tokens_after(m, random_batch(m.config, 3, 3), t).earlier);
    EXPECT_GT(moved, 1e-3) << kind;
  }
  ModelConfig base = tiny_config({"transformer", "base"});
  base.router.softmax.evaluation.factor = 1;
  EXPECT_TRUE(TinyModel(base, *backend, *solo, DType::f64).model->causal()) << "which has no use for a capacity";
}

TEST(PartialPrediction, CountsThePositionsAfterThePrefixAlone) {
  auto backend = make_cpu_backend();
  const auto solo = make_solo(*backend);
  ModelConfig config = config_of({{"gmlp", "smlp"}, "partial"});
  config.context = 10;
  TinyModel m(config, *backend, *solo, DType::f64);
  EXPECT_EQ(m.model->predicted(10), 8);
  EXPECT_EQ(m.model->predicted(1), 0);
  Batch batch = random_batch(config, 2, 3);
  m.load(batch, 0, 2);
  const double loss = m.forward_loss();
  for (const std::size_t row : {0, 1, 10, 11}) batch.targets[row] = (batch.targets[row] + 1) % 11;
  m.load(batch, 0, 2);
  EXPECT_EQ(m.forward_loss(), loss);
  batch.targets[2] = (batch.targets[2] + 1) % 11;
  m.load(batch, 0, 2);
  EXPECT_NE(m.forward_loss(), loss);
}

}  // namespace
}  // namespace smlp
