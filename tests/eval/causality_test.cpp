#include "eval/causality.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/error.h"
#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

constexpr std::int64_t vocabulary = 5;

// Logits of position t: something of the tokens from the first one to `sees` beyond t, of this sequence alone; and as
// much of the first token of the batch as `of_batch` says.
class Reader final : public Model {
 public:
  std::function<std::int64_t(std::int64_t t)> sees = [](std::int64_t) { return 0; };
  double gain = 1, of_batch = 0;

  void forward_logits(Context& c, TensorView rows, TensorView logits) override {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(c.rows())), index(static_cast<std::size_t>(rows.size()));
    c.backend.download(c.tokens, tokens.data());
    c.backend.download(rows, index.data());
    std::vector<double> out;
    for (const auto row : index) {
      const std::int64_t s = row / c.length, t = row % c.length;
      double seen = of_batch * tokens.back();
      for (std::int64_t i = 0; i < c.length && i <= t + sees(t); ++i) {
        const double weight = i > t ? gain : 1;
        seen += weight * std::sin(static_cast<double>(i + 1) * (1 + tokens[static_cast<std::size_t>(s * c.length + i)]));
      }
      for (std::int64_t v = 0; v < vocabulary; ++v) out.push_back(v == 3 ? seen : 1.0);
    }
    c.backend.upload(out.data(), logits);
  }
  void forward_loss(Context&, TensorView) override {}
  void backward(Context&, const std::function<void(int)>&) override {}
  int blocks() const override { return 0; }
  std::int64_t predicted(std::int64_t length) const override { return length; }
  bool causal() const override { return false; }  // what a model says of itself is not asked
};

class Checked : public testing::Test {
 protected:
  CausalityReport check(Model& model, CausalityPlan plan = {.context = 12, .vocabulary = vocabulary}) {
    Arena arena(*backend);
    return check_causality(model, *backend, arena, plan);
  }
  std::unique_ptr<Backend> backend = make_cpu_backend();
  Reader reader;
};

TEST_F(Checked, AModelThatLooksBackIsCausal) {
  const auto report = check(reader);
  EXPECT_TRUE(report.causal());
  EXPECT_EQ(report.tried, 11) << "the last position has no later token";
  EXPECT_EQ(report.watched, 12);
  EXPECT_EQ(report.leaking, 0);
  EXPECT_EQ(report.largest_move, 0);
  EXPECT_EQ(report.largest_move_elsewhere, 0);
}

TEST_F(Checked, TheFirstPositionThatLooksAheadIsNamed) {
  reader.sees = [](std::int64_t t) { return t == 4 || t == 9 ? 2 : 0; };
  const auto report = check(reader);
  ASSERT_FALSE(report.causal());
  EXPECT_EQ(report.first->position, 4);
  EXPECT_GE(report.first->after, 4);
  EXPECT_LE(report.first->after, 5) << "it sees positions 5 and 6";
  EXPECT_EQ(report.first->logit, 3);
  EXPECT_GT(report.first->moved, 1e-3);
  EXPECT_EQ(report.leaking, 2);
}

TEST_F(Checked, TheBoundIsKept) {
  reader.sees = [](std::int64_t t) { return t == 4 ? 1 : 0; };
  reader.gain = 1e-14;
  const auto tiny = check(reader);
  EXPECT_TRUE(tiny.causal());
  EXPECT_GT(tiny.largest_move, 0);
  reader.gain = 1e-11;
  EXPECT_FALSE(check(reader).causal());
}

TEST_F(Checked, WhatPredictsNothingIsNotJudged) {
  reader.sees = [](std::int64_t t) { return t < 3 ? 5 : 0; };
  EXPECT_FALSE(check(reader).causal());
  const auto report = check(reader, {.context = 12, .vocabulary = vocabulary, .first_position = 3});
  EXPECT_TRUE(report.causal());
  EXPECT_EQ(report.watched, 9);
}

TEST_F(Checked, LongContextsAreSampledWithBothEnds) {
  const CausalityPlan plan{.context = 500, .vocabulary = vocabulary, .tries = 16, .seed = 3};
  const auto report = check(reader, plan);
  EXPECT_GE(report.tried, 15);
  EXPECT_LE(report.tried, 17);
  reader.sees = [](std::int64_t t) { return t == 0 ? 1 : 0; };
  EXPECT_EQ(check(reader, plan).first->position, 0) << "the first position is always tried";
  reader.sees = [](std::int64_t t) { return 499 - t; };
  EXPECT_GT(check(reader, plan).leaking, 400);
}

TEST_F(Checked, OtherSequencesOfTheBatchAreToldApart) {
  reader.of_batch = 0.25;
  const auto report = check(reader);
  // The last token of the batch belongs to the changed sequence: all of its positions see it, and so do the other's.
  EXPECT_FALSE(report.causal());
  EXPECT_GT(report.largest_move_elsewhere, 0.1);
}

// A leaking model was "causal" once its weights were NaN: what is no number does not move.
TEST_F(Checked, AModelWhoseLogitsAreNotFiniteIsNotJudged) {
  reader.sees = [](std::int64_t) { return 1; };
  for (const double gain : {std::nan(""), HUGE_VAL}) {
    reader.gain = gain;
    try {
      check(reader);
      FAIL() << gain;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::diverged);
    }
  }
}

TEST_F(Checked, NothingToChangeIsRefused) {
  EXPECT_THROW(check(reader, {.context = 1, .vocabulary = vocabulary}), Error);
  EXPECT_THROW(check(reader, {.context = 12, .vocabulary = 1}), Error);
  EXPECT_THROW(check(reader, {.context = 12, .vocabulary = vocabulary, .first_position = 11}), Error);
}

TEST_F(Checked, RealModelsAreCausal) {
  const auto solo = make_solo(*backend);
  for (const std::vector<std::string>& stack : {std::vector<std::string>{"gmlp", "gmlp"}, {"gmlp", "smlp", "smlp"}}) {
    test::TinyModel m(test::tiny_config(stack), *backend, *solo, DType::f64);
    const auto report = check(*m.model, {.context = m.config.context, .vocabulary = m.config.vocabulary});
    EXPECT_TRUE(report.causal()) << report.largest_move;
    EXPECT_EQ(report.tried, 5);
  }
}

}  // namespace
}  // namespace smlp
