// What a rank does to itself in a drill: only where the environment names the drill of its own run, only in its turn, once.
#include "worker/drill_faults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <bit>
#include <cmath>

#include "checkpoint/disk.h"
#include "core/clock.h"
#include "core/error.h"

namespace smlp {
namespace {

using testing::HasSubstr;

class DrillFaultsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-drill-XXXXXX";
    run.root = mkdtemp(pattern.data());
    weight = &store.add({.name = "a.weight", .shape = {8, 8}, .initial = Initial::uniform(0.5)});
    store.seal(*backend, DType::f32, 1);
    store.zero_grad(*backend);
  }
  void TearDown() override {
    unsetenv(DrillFolder::variable);
    std::filesystem::remove_all(run.root);
  }
  std::unique_ptr<DrillFaults> faults(FaultKind kind, int of_rank = 1, int my_rank = 1, double seconds = 0) {
    const std::vector<Fault> plan = {{.number = 1, .kind = kind, .rank = of_rank, .step = 5, .fraction = 0.3, .seconds = seconds}};
    DrillFolder(run).begin(plan);
    return std::make_unique<DrillFaults>(run, 2, my_rank, 10);
  }
  std::vector<float> values(const TensorView& view) {
    std::vector<float> all(static_cast<std::size_t>(view.size()));
    backend->download(view, all.data());
    return all;
  }
  bool poisoned() { return std::isnan(values(weight->grad)[0]); }
  std::vector<Piece> pieces() {
    std::vector<Piece> list(2);
    list[0] = {.name = "a.slice", .local = weight->grad, .global_shape = {16, 8}};
    list[1] = {.name = "a.weight", .local = weight->value, .global_shape = {8, 8}};
    return list;
  }

  RunDirectory run;
  std::unique_ptr<Backend> backend = make_cpu_backend();
  ParameterStore store;
  Parameter* weight = nullptr;
};

TEST_F(DrillFaultsTest, AreForTheDrillThatTheEnvironmentNamesAlone) {
  faults(FaultKind::nan);
  EXPECT_EQ(DrillFaults::of_environment(run, 1, 0, 10), nullptr);
  setenv(DrillFolder::variable, DrillFolder(run).path().c_str(), 1);
  EXPECT_NE(DrillFaults::of_environment(run, 1, 0, 10), nullptr);
  for (const char* other : {"", "1", "/tmp", "/nowhere/drill"}) {
    setenv(DrillFolder::variable, other, 1);
    try {
      DrillFaults::of_environment(run, 1, 0, 10);
      ADD_FAILURE() << other;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::configuration);
      EXPECT_THAT(error.what(), HasSubstr("SMLP_DRILL"));
    }
  }
}

TEST_F(DrillFaultsTest, PoisonGradientsFromTheirStepOnInTheirTurnAndInOneAttempt) {
  const auto mine = faults(FaultKind::nan);
  mine->in_step(9, *backend, store);
  EXPECT_FALSE(poisoned()) << "not its turn yet";
  DrillFolder(run).open_turn(1);
  mine->in_step(4, *backend, store);
  EXPECT_FALSE(poisoned()) << "too early";
  for (const int step : {9, 10, 11}) {
    store.zero_grad(*backend);
    mine->in_step(step, *backend, store);
    EXPECT_TRUE(poisoned()) << step;
  }
  EXPECT_EQ(DrillFolder(run).struck(1)->step, 9);
  EXPECT_EQ(DrillFolder(run).struck(1)->attempt, 2);
  store.zero_grad(*backend);
  DrillFaults(run, 3, 1, 10).in_step(9, *backend, store);
  EXPECT_FALSE(poisoned()) << "the next attempt";
}

TEST_F(DrillFaultsTest, AreOfTheirRankAlone) {
  const auto others = faults(FaultKind::nan, 1, 0);
  DrillFolder(run).open_turn(1);
  others->in_step(9, *backend, store);
  EXPECT_FALSE(poisoned());
  EXPECT_FALSE(DrillFolder(run).struck(1));
}

TEST_F(DrillFaultsTest, FlipOneBitOfOneElementOfATensorThatAllHold) {
  const auto mine = faults(FaultKind::bit_flip);
  DrillFolder(run).open_turn(1);
  auto list = pieces();
  const auto before = values(weight->value), slice = values(weight->grad);
  mine->after_update(5, *backend, list);
  mine->after_update(6, *backend, list);
  const auto after = values(weight->value);
  int bits = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    bits += std::popcount(std::bit_cast<std::uint32_t>(before[i]) ^ std::bit_cast<std::uint32_t>(after[i]));
    EXPECT_TRUE(std::isfinite(after[i]));
  }
  EXPECT_EQ(bits, 1);
  EXPECT_EQ(values(weight->grad), slice);
}

TEST_F(DrillFaultsTest, FillTheDiskForWhatNeedsRoomAndForAsManySteps) {
  const auto mine = faults(FaultKind::full_disk);
  const auto file = run.root / "file";
  DrillFolder(run).open_turn(1);
  write_file(file, "before");
  mine->in_step(5, *backend, store);
  try {
    write_file(file, "full");
    ADD_FAILURE() << "there was room";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io_failed);
    EXPECT_THAT(error.what(), HasSubstr("No space left on device"));
  }
  remove_file(file);
  mine->in_step(14, *backend, store);
  EXPECT_THROW(write_file(file, "full"), Error);
  mine->in_step(15, *backend, store);
  write_file(file, "after");
  EXPECT_TRUE(std::filesystem::exists(file));
}

TEST_F(DrillFaultsTest, SlowAFewSteps) {
  const auto mine = faults(FaultKind::slow, 1, 1, 0.4);
  DrillFolder(run).open_turn(1);
  for (int step = 1; step < 10; ++step) {
    const double began = monotonic_seconds();
    mine->in_step(step, *backend, store);
    mine->in_step(step, *backend, store);  // the next micro-batch
    const double took = monotonic_seconds() - began;
    EXPECT_EQ(took >= 0.4, step >= 5 && step < 5 + slow_steps) << step << ": " << took;
  }
}

// Fifty small steps took less time than one look of the drill on a busy machine: a fault struck when the run was over.
TEST_F(DrillFaultsTest, KeepTheRunInSightOfTheDrill) {
  const auto of_rank_0 = faults(FaultKind::nan, 1, 0);
  const DrillFolder folder(run);
  int waits = 0;
  const auto wait = [&] {
    if (++waits == 3) folder.see(6);
  };
  of_rank_0->stay_in_sight(most_unseen_steps, wait);
  EXPECT_EQ(waits, 0) << "so many may be unseen";
  of_rank_0->stay_in_sight(most_unseen_steps + 1, wait);
  EXPECT_EQ(waits, 3);
  of_rank_0->stay_in_sight(most_unseen_steps + 6, wait);
  EXPECT_EQ(waits, 3);
  DrillFaults(run, 2, 1, 10).stay_in_sight(1000, wait);
  EXPECT_EQ(waits, 3) << "the other ranks wait for rank 0 anyway";
}

TEST_F(DrillFaultsTest, CutTheShardInHalfAndEndTheProcess) {
  const auto folder = run.checkpoints() / "step-00000010.attempt-0002.tmp";
  std::filesystem::create_directories(folder);
  const auto shard = folder / "rank-0001.h5";
  EXPECT_EXIT(
      {
        const auto mine = faults(FaultKind::torn_write);
        DrillFolder(run).open_turn(1);
        mine->in_step(10, *backend, store);
        write_file(shard, std::string(1000, 'x'));
        _exit(0);
      },
      testing::KilledBySignal(SIGKILL), "");
  EXPECT_EQ(std::filesystem::file_size(shard), 500u);
}

}  // namespace
}  // namespace smlp
