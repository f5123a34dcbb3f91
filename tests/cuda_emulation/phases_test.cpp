// Seconds of a step by phase on the emulated GPU, by the time that it invents: a millisecond for a kernel or a copy, and
// so long that it shows for a call of NCCL.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "tests/cuda_emulation/small_model.h"
#include "tests/cuda_emulation/streams.h"

namespace smlp::test {
namespace {

constexpr double work = 1e-3;

class DevicePhases : public testing::Test {
 protected:
  void TearDown() override { emulation::set_clock(0, 0); }

  // Of four steps.
  static std::vector<PhaseSeconds> phases_of(const std::string& kind, double collective, double slow_reading = 0) {
    emulation::set_clock(work, collective);
    SmallRun run(small_job(kind, "f32"), Ranks::by_nccl, make_cuda_backend());
    run.while_reading = [&] { std::this_thread::sleep_for(std::chrono::duration<double>(slow_reading)); };
    std::vector<PhaseSeconds> steps;
    for (int step = 0; step < 4; ++step) steps.push_back(run.step().phases);
    return steps;
  }
  static bool alone() { return world().size() == 1; }
};

void expect_same(const PhaseSeconds& got, const PhaseSeconds& wanted, std::initializer_list<Phase> phases) {
  for (const Phase phase : phases) {
    EXPECT_NEAR(got[phase], wanted[phase], work / 10) << phase_names[static_cast<std::size_t>(phase)];
  }
}

TEST_F(DevicePhases, AreThoseOfTheDevicesTime) {
  const auto steps = phases_of("gmlp", 0), slow = phases_of("gmlp", 0, 0.02);
  for (const Phase phase : {Phase::forward, Phase::backward, Phase::optimizer, Phase::data, Phase::other}) {
    const double all = steps[2][phase] / work;
    EXPECT_GT(all, 0.9) << phase_names[static_cast<std::size_t>(phase)];
    EXPECT_NEAR(all, std::round(all), 0.05) << "whole pieces of work";
  }
  const auto every = {Phase::forward, Phase::backward, Phase::exchange, Phase::reduce, Phase::optimizer, Phase::data,
                      Phase::other};
  expect_same(steps[3], steps[2], every);
  expect_same(slow[2], steps[2], every);
  EXPECT_EQ(steps[2][Phase::exchange], 0);
  EXPECT_EQ(steps[2][Phase::checkpoint], 0);
  // The update comes behind the last point that the step waits for.
  expect_same(steps[0], steps[1], {Phase::forward, Phase::backward, Phase::data});
  EXPECT_LT(steps[0][Phase::optimizer], steps[1][Phase::optimizer] - work / 2);
}

TEST_F(DevicePhases, WaitingForOtherRanksIsExchangeAndReduce) {
  const auto quick = phases_of("smlp", 0.25)[2], slow = phases_of("smlp", 0.5)[2];
  expect_same(slow, quick, {Phase::forward, Phase::backward, Phase::data, Phase::other});
  if (alone()) {
    EXPECT_EQ(quick[Phase::exchange], 0);
    expect_same(slow, quick, {Phase::reduce, Phase::optimizer});
    return;
  }
  EXPECT_LT(quick[Phase::forward] + quick[Phase::backward], 0.25) << "no call of NCCL is within";
  EXPECT_GE(quick[Phase::exchange], 4 * 0.25) << "to the experts and back, forward and backward";
  EXPECT_GE(slow[Phase::exchange] - quick[Phase::exchange], 4 * 0.25 - work);
  EXPECT_GE(quick[Phase::reduce], 0.25 - work) << "of the gradients that come last";
}

}  // namespace
}  // namespace smlp::test
