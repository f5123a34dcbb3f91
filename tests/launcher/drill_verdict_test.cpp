// A drill's verdict on records written by hand: what is right passes, and each thing that is wrong is said.
#include "launcher/drill_verdict.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/files.h"

namespace smlp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Rank 1 is killed after step 25: the run goes on from checkpoint 20, and is done at step 60.
class DrillVerdict : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-verdict-XXXXXX";
    folder = mkdtemp(pattern.data());
    undisturbed.root = folder / "undisturbed";
    settings.run.root = folder / "drilled";
    for (const auto& run : {undisturbed, settings.run}) std::filesystem::create_directories(run.checkpoints());
    for (int step = 1; step <= 60; ++step) {
      append_line(undisturbed.metrics(), fmt::format(R"({{"attempt":1,"step":{},"loss":{}}})", step, loss(step)));
    }
    steps(1, 1, 25);
    steps(2, 21, 60);
    attempt(1, "signal", "rank 1 was killed by signal 9 (SIGKILL)");
    attempt(2, "done", "done");
    event(1, "start", 0, "from the first step");
    event(2, "start", 20, "from step-00000020");
    FaultResult one{.fault = {.kind = FaultKind::kill, .rank = 1, .step = 25}, .strike = {25, 1, 25.5}};
    one.checkpoint = 20;
    one.first = 21;
    one.last = 25;
    one.lost = 5;
    drill.faults.push_back(one);
    drill.exit_code = 0;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  static double loss(std::int64_t step) { return 5.0 / static_cast<double>(step); }
  void steps(int attempt, int from, int to) {
    for (int step = from; step <= to; ++step) {
      drill.steps.push_back({.attempt = attempt, .step = step, .loss = loss(step), .time = step * 1.0,
                             .checkpoint = (step - 1) / 10 * 10});
    }
  }
  void attempt(int number, const std::string& cause, const std::string& reason) {
    append_line(settings.run.attempts(),
                fmt::format(R"({{"attempt":{},"cause":"{}","reason":"{}"}})", number, cause, reason));
  }
  void event(int attempt, const std::string& name, int step, const std::string& detail) {
    append_line(settings.run.events(), fmt::format(R"({{"attempt":{},"event":"{}","step":{},"detail":"{}"}})", attempt,
                                                   name, step, detail));
  }
  std::vector<std::string> judged() {
    return judge(drill, settings, undisturbed, {.steps = 60, .save_every = 10, .compare_every = 20, .ranks = 2});
  }
  FaultResult& one() { return drill.faults.front(); }

  std::filesystem::path folder;
  RunDirectory undisturbed;
  DrillSettings settings;
  DrillRun drill;
};

TEST_F(DrillVerdict, HasNothingToSayOfARunThatCameBackRight) {
  EXPECT_THAT(judged(), IsEmpty());
  EXPECT_EQ(one().noticed, "rank 1 was killed by signal 9 (SIGKILL)");
  EXPECT_EQ(one().at_most, 20);
}

TEST_F(DrillVerdict, SaysThatTheRunIsNotDone) {
  drill.exit_code = 70;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("ended with 70")));
}

TEST_F(DrillVerdict, SaysThatMoreIsLostThanMayBe) {
  one().lost = 21;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("21 steps are lost")));
  for (auto& step : drill.steps) step.checkpoint = std::max<std::int64_t>(0, step.step - 1) / 10 * 10 - (step.step > 11 ? 10 : 0);
  one().lost = 21;
  EXPECT_THAT(judged(), IsEmpty()) << "saves that took more than twenty steps";
  one().lost = 22;
  EXPECT_THAT(judged(), IsEmpty()) << "the next one waits for them";
  one().lost = 23;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("23 steps are lost")));
}

TEST_F(DrillVerdict, AllowsTheStepsThatARepairGoesFurtherBack) {
  one().lost = 30;
  one().checkpoint = 30;
  one().spare = 20;
  one().fault.kind = FaultKind::torn_checkpoint;
  EXPECT_THAT(judged(), IsEmpty());
  one().lost = 31;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("31 steps are lost")));
  one().spare = 10;  // the save between them found no room
  EXPECT_THAT(judged(), IsEmpty());
}

TEST_F(DrillVerdict, SaysThatAnAttemptEndedOfSomethingElse) {
  one().fault.kind = FaultKind::stop;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("recorded as ended by 'signal'")));
}

TEST_F(DrillVerdict, SaysThatAnAttemptEndedWithoutAFault) {
  one().strike.attempt = 7;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("no record tells how attempt 7 ended"),
                                    HasSubstr("attempt 1 ended without a fault: rank 1 was killed")));
}

// A run that was done before it had come back from the drill's own strike was once said to have lost a rank and damaged a
// checkpoint by itself: the strike had been forgotten.
TEST_F(DrillVerdict, TakesAStrikeThatTheRunDidNotComeBackFromForItsOwn) {
  drill.unfinished = one();
  drill.unfinished->fault.kind = FaultKind::torn_checkpoint;
  drill.faults.clear();
  drill.problem = "the run ended with 0 before a step beyond 60 was done";
  event(2, "checkpoint_rejected", 0, "step-00000030: rank-0001.h5 is cut off");
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("before a step beyond 60")));
  drill.unfinished->strike = {};
  drill.unfinished->ended_before = 1;  // struck while the ranks were to start again, and the second strike found none
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("before a step beyond 60"), HasSubstr("attempt 2 rejected a checkpoint")));
}

TEST_F(DrillVerdict, SaysThatALossIsNotTheUndisturbedRuns) {
  drill.steps[30].loss += 1e-15;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("step 26 of attempt 2 has a loss of")));
  drill.steps[31].loss = 0;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("step 26 of attempt 2"), HasSubstr("1 steps more")));
}

TEST_F(DrillVerdict, PassesOverTheLossesOfAnAttemptWhoseNumbersAreTheFault) {
  one().fault.kind = FaultKind::bit_flip;
  std::filesystem::remove(settings.run.attempts());
  attempt(1, "fault", "rank 1 holds another 'embed.weight'");
  attempt(2, "done", "done");
  drill.steps[24].loss = 9;
  EXPECT_THAT(judged(), IsEmpty());
  drill.steps[23].loss = 9;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("step 24 of attempt 1"))) << "before it";
}

TEST_F(DrillVerdict, SaysThatAnAttemptWentOnFromElsewhere) {
  drill.steps.erase(drill.steps.begin() + 25);
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("attempt 2 went on from step 20, and did step 22 first")));
}

TEST_F(DrillVerdict, SaysThatASoundCheckpointWasRejected) {
  event(2, "checkpoint_rejected", 0, "step-00000030: its manifest is cut off");
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("attempt 2 rejected a checkpoint: step-00000030")));
}

TEST_F(DrillVerdict, SaysThatTheRunWentOnFromADamagedCheckpoint) {
  one().fault.kind = FaultKind::torn_checkpoint;
  one().checkpoint = 20;
  one().first = 21;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("the run went on from the damaged checkpoint 20")));
  one().checkpoint = 30;
  event(2, "checkpoint_rejected", 0, "step-00000030: rank-0001.h5 is cut off");
  EXPECT_THAT(judged(), IsEmpty());
}

TEST_F(DrillVerdict, WantsAnEventOfADiskThatWasFull) {
  drill.steps.clear();
  steps(1, 1, 60);
  for (const auto& file : {settings.run.attempts(), settings.run.events()}) std::filesystem::remove(file);
  attempt(1, "done", "done");
  event(1, "start", 0, "");
  one().fault.kind = FaultKind::full_disk;
  one().lost = 0;
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("no event says that a checkpoint failed")));
  event(1, "checkpoint_failed", 20, "No space left on device");  // begun before, and still being written
  EXPECT_THAT(judged(), IsEmpty());
  EXPECT_EQ(one().noticed, "No space left on device");
}

TEST_F(DrillVerdict, SaysWhatIsLeft) {
  drill.left.push_back("4711: smlp-worker train");
  std::filesystem::create_directories(settings.run.checkpoints() / "step-00000030.attempt-0001.tmp");
  EXPECT_THAT(judged(), ElementsAre(HasSubstr("4711"), HasSubstr("step-00000030.attempt-0001.tmp")));
}

// What follows from the steps that a run did after a strike in step 25, or after it, at second 25.5.
class DrillReturn : public DrillVerdict {
 protected:
  FaultResult followed(FaultKind kind, int waits_allowed) {
    FaultResult result{.fault = {.kind = kind}, .strike = {25, 1, 25.5}};
    RunFollower follower(settings.run);
    follow_return(result, follower, [&](const std::function<bool()>& condition, const std::string& what) {
      follower.read();
      ASSERT_GE(--waits_allowed, 0);
      ASSERT_TRUE(condition()) << what;
    });
    return result;
  }
  void step(int attempt, int number, double time) {
    append_line(settings.run.metrics(),
                fmt::format(R"({{"attempt":{},"step":{},"loss":1,"time":{}}})", attempt, number, time));
  }
};

TEST_F(DrillReturn, TellsTheStepsThatAreDoneAgainFromTheFirstNewOne) {
  for (int i = 20; i <= 26; ++i) step(1, i, i);  // rank 0 did one more
  step(2, 22, 40);
  for (int i = 23; i <= 28; ++i) step(3, i, 100 + i);
  const auto result = followed(FaultKind::kill, 2);
  EXPECT_EQ(result.first, 22);
  EXPECT_EQ(result.last, 26);
  EXPECT_EQ(result.lost, 5);
  EXPECT_DOUBLE_EQ(result.to_step, 14.5);
  EXPECT_DOUBLE_EQ(result.to_new_step, 101.5);
}

// The step before is written by rank 0 a moment after another rank has begun its slow one: once 4 ms were taken for the
// second that it slept.
TEST_F(DrillReturn, FromASlowStepIsTheEndOfThatStep) {
  step(1, 24, 25.51);
  step(1, 25, 26.6);
  step(1, 26, 27.7);
  step(1, 28, 30);
  const auto result = followed(FaultKind::slow, 3);
  EXPECT_EQ(result.first, 25);
  EXPECT_EQ(result.lost, 0);
  EXPECT_NEAR(result.to_step, 1.1, 1e-9);
  EXPECT_NEAR(result.to_new_step, 1.1, 1e-9);
}

}  // namespace
}  // namespace smlp
