// What `bench step` says of a step: its time and its phases are of the same one.
#include <gtest/gtest.h>

#include "worker/bench_engine.h"

namespace smlp {
namespace {

BenchEngine::Step step_of(double forward, double backward) {
  BenchEngine::Step step;
  step.phases[Phase::forward] = forward;
  step.phases[Phase::backward] = backward;
  step.seconds = forward + backward + 0.5;
  return step;
}

// The phases were means: on a busy machine, where some steps take ten times as long, forward alone exceeded the median step.
TEST(BenchStep, PhasesAreOfTheStepWithTheMedianTime) {
  const std::vector<BenchEngine::Step> steps = {step_of(1, 2), step_of(60, 20), step_of(1.25, 2.25), step_of(1, 1), step_of(30, 90)};
  const auto middle = BenchEngine::middle(steps);
  EXPECT_EQ(middle.seconds, 4);
  EXPECT_EQ(middle.phases[Phase::forward], 1.25);
  EXPECT_EQ(middle.phases[Phase::backward], 2.25);
  EXPECT_EQ(BenchEngine::middle({step_of(1, 2)}).seconds, 3.5);
  EXPECT_EQ(BenchEngine::middle({step_of(1, 2), step_of(2, 2)}).seconds, 4.5) << "the upper of two";
}

}  // namespace
}  // namespace smlp
