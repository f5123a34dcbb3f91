// fp16 and its loss scale, with any number of ranks: the scale itself, and steps taken with it.
#include "optim/loss_scale.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "tests/comm/ranks.h"
#include "worker/engine.h"

namespace smlp {
namespace {

TEST(LossScale, HalvesAfterAnOverflowAndDoublesAfterAWindowWithout) {
  LossScale scale(1024, 3);
  scale.step_over(false);
  EXPECT_EQ(scale.value(), 512);
  for (int i = 0; i < 2; ++i) scale.step_over(true);
  scale.step_over(false);  // the count begins again
  EXPECT_EQ(scale.value(), 256);
  for (int i = 0; i < 2; ++i) scale.step_over(true);
  EXPECT_EQ(scale.value(), 256);
  scale.step_over(true);
  EXPECT_EQ(scale.value(), 512);
  for (int i = 0; i < 3; ++i) scale.step_over(true);
  EXPECT_EQ(scale.value(), 1024);
}

TEST(LossScale, StaysWithinItsBounds) {
  LossScale falls(4, 2), grows(LossScale::most / 2, 1);
  for (int i = 0; i < 5; ++i) falls.step_over(false);
  EXPECT_EQ(falls.value(), LossScale::least);
  EXPECT_FALSE(falls.can_fall());
  for (int i = 0; i < 5; ++i) grows.step_over(true);
  EXPECT_EQ(grows.value(), LossScale::most);
}

// A resumed run once went on with 2^24 where an uninterrupted one had more, and an overflow raised a scale below 1.
TEST(LossScale, MayBeginBeyondItsBounds) {
  LossScale large(LossScale::most * 8, 2), small(LossScale::least / 8, 2), resumed(LossScale::most * 8, 2);
  large.step_over(false);
  EXPECT_EQ(large.value(), LossScale::most * 4);
  resumed.restore(large.state());
  EXPECT_EQ(resumed.value(), large.value());
  for (int step = 0; step < 4; ++step) resumed.step_over(true);
  EXPECT_EQ(resumed.value(), LossScale::most * 8);
  EXPECT_FALSE(small.can_fall());
  small.step_over(false);
  EXPECT_EQ(small.value(), LossScale::least / 8);
}

TEST(LossScale, IsFixedWithoutAWindowAndOneWhereThereIsNone) {
  LossScale fixed(64, 0), none;
  for (auto* scale : {&fixed, &none}) {
    scale->step_over(false);
    scale->restore({.value = 7, .clean_steps = 1});
    scale->step_over(true);
    EXPECT_FALSE(scale->can_fall());
  }
  EXPECT_EQ(fixed.value(), 64);
  EXPECT_EQ(none.value(), 1);
}

TEST(LossScale, GoesOnWhereItWasSaved) {
  LossScale straight(1024, 3), resumed(1024, 3);
  for (const bool finite : {false, true, true}) straight.step_over(finite);
  resumed.restore(straight.state());
  for (auto* scale : {&straight, &resumed}) scale->step_over(true);
  EXPECT_EQ(straight.value(), 1024);
  EXPECT_EQ(resumed.value(), 1024);
}

JobConfig small_job(const std::string& kind, const std::string& precision) {
  JobConfig job;
  job.model.kind = kind;
  job.model.context = 8;
  job.model.width = job.model.hidden = 16;
  job.model.dense_blocks = 1;
  job.model.sparse_blocks = kind == "smlp" || kind == "switch" ? 1 : 0;
  if (kind == "switch") job.routing.tokens = kind;
  job.routing.balance_weight = 3;  // where there is such a loss, the gradient is its gate's for the most part
  job.model.experts = 4;
  job.model.vocabulary = 64;
  job.train.precision = precision;
  job.train.micro_batch = job.routing.group_sequences = 1;
  job.train.global_batch = 12;
  job.optimizer.learning_rate = 1e-2;
  job.schedule.warmup_steps = 0;
  return job;
}

std::vector<StepResult> train(const JobConfig& job, int steps) {
  auto& world = test::world();
  Engine engine(job, make_backend(job), ProcessGrid::cut(world.split(0, world.rank()), 1), true);
  const RandomStream random(3, "tokens");
  std::vector<std::int32_t> tokens;
  const auto read = [&](std::int64_t position, std::int64_t count, std::int64_t, const std::int32_t*& in,
                        const std::int32_t*& wanted) {
    tokens.clear();
    for (std::int64_t i = 0; i < count * job.model.context; ++i) {
      const auto place = static_cast<std::uint64_t>(position * job.model.context + i);
      tokens.push_back(static_cast<std::int32_t>(random.bits(place) % 64));
    }
    in = wanted = tokens.data();
  };
  std::vector<StepResult> results;
  for (int step = 1; step <= steps; ++step) {
    std::vector<double> flags;
    results.push_back(engine.train_step(step, (step - 1) * job.train.global_batch, read, flags, [] {}));
  }
  return results;
}

TEST(HalfPrecision, TakesTheStepsOfSinglePrecisionWhateverTheScale) {
  for (const char* kind : {"gmlp", "smlp", "transformer", "switch"}) {
    const auto wanted = train(small_job(kind, "f32"), 4);
    for (const double scale : {16.0, 65536.0}) {
      auto job = small_job(kind, "fp16");
      job.train.loss_scale = scale;
      const auto got = train(job, 4);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        EXPECT_NEAR(got[i].loss, wanted[i].loss, 4e-3 * wanted[i].loss) << kind << ", " << scale << ", step " << i + 1;
        EXPECT_NEAR(got[i].gradient_norm, wanted[i].gradient_norm, 2e-2 * wanted[i].gradient_norm) << kind << ", " << scale;
        EXPECT_TRUE(got[i].updated);
        EXPECT_EQ(got[i].loss_scale, scale);
      }
      EXPECT_LT(got.back().loss, got.front().loss);
    }
  }
}

TEST(HalfPrecision, AnOverflowChangesNothingButTheScaleUntilTheGradientFits) {
  auto job = small_job("gmlp", "fp16");
  job.train.loss_scale = LossScale::most;
  job.train.loss_scale_window = 3;
  const auto steps = train(job, 12);
  std::size_t first = 0;
  while (first < steps.size() && !steps[first].updated) ++first;
  ASSERT_GT(first, 0u) << "2^24 / 96 tokens is more than f16 holds";
  ASSERT_LT(first + 4, steps.size());
  for (std::size_t i = 0; i < first; ++i) {
    EXPECT_TRUE(steps[i].overflowed);
    EXPECT_FALSE(std::isfinite(steps[i].gradient_norm));
    EXPECT_TRUE(std::isfinite(steps[i].loss));
    EXPECT_EQ(steps[i + 1].loss_scale, steps[i].loss_scale / 2);
  }
  EXPECT_FALSE(steps[first].overflowed);
  EXPECT_EQ(steps[first + 2].loss_scale, steps[first].loss_scale);
  EXPECT_EQ(steps[first + 3].loss_scale, 2 * steps[first].loss_scale) << "after three steps without an overflow";
}

}  // namespace
}  // namespace smlp
