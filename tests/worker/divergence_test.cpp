#include "worker/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"

namespace smlp {
namespace {

using Action = Divergence::Action;
using testing::ElementsAre;
using testing::HasSubstr;

JobConfig job(const std::string& policy = "skip") {
  JobConfig job;
  job.train.global_batch = 4;
  job.divergence = {.spike_zscore = 6, .spike_window = 16, .spike_policy = policy, .spike_budget = 2,
                    .pass_over_steps = 3};
  return job;
}
double noise(std::int64_t step) { return 3 + 0.05 * std::sin(static_cast<double>(7 * step)); }

// Calm steps from `first` to before `end`.
void calm(Divergence& divergence, std::int64_t first, std::int64_t end) {
  for (auto step = first; step < end; ++step) {
    ASSERT_EQ(divergence.judge(step, (step - 1) * 4, noise(step), 1), Action::update) << step;
  }
}

TEST(LossWindow, JudgesOnlyOnceHalfOfItIsThere) {
  LossWindow window(8);
  for (int i = 0; i < 3; ++i) window.add(1);
  EXPECT_FALSE(window.zscore(100));
  window.add(1);
  EXPECT_NEAR(*window.zscore(1.05), 5, 1e-9) << "1 % of the median is the least deviation";
}

TEST(LossWindow, AnEarlierOutlierHidesNoLaterOne) {
  LossWindow window(9);
  for (const double loss : {1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 50.0, 1.1, 0.9}) window.add(loss);
  // The median 1.0 and the median of the deviations 0.1 of nine, by the ratio of a normal distribution's.
  EXPECT_NEAR(*window.zscore(2), 1 / (1.4826 * 0.1), 1e-9) << "with mean and variance it would be below 0";
  window.add(1);
  EXPECT_EQ(window.losses().size(), 9u);
}

TEST(Divergence, SkipsASpikeAndKeepsItOutOfTheWindow) {
  Divergence divergence(job(), {});
  calm(divergence, 1, 30);
  EXPECT_EQ(divergence.judge(30, 116, 9, 1), Action::skip);
  EXPECT_THAT(divergence.sentence(), HasSubstr("step 30"));
  EXPECT_FALSE(divergence.ended());
  EXPECT_EQ(divergence.judge(31, 120, 9, 1), Action::skip);
  EXPECT_EQ(divergence.counts().skipped, 2);
  EXPECT_EQ(divergence.judge(32, 124, 9, 1), Action::stop) << "the budget is 2";
  EXPECT_TRUE(divergence.ended());
  ASSERT_TRUE(divergence.verdict());
  EXPECT_TRUE(divergence.verdict()->stop);
  EXPECT_EQ(divergence.verdict()->not_after, 31);
  EXPECT_THAT(divergence.sentence(), HasSubstr("divergence.spike_budget = 2 is spent"));
}

TEST(Divergence, TheBudgetIsThatOfAThousandSteps) {
  Divergence divergence(job(), {});
  calm(divergence, 1, 30);
  EXPECT_EQ(divergence.judge(30, 0, 9, 1), Action::skip);
  EXPECT_EQ(divergence.judge(31, 0, 9, 1), Action::skip);
  calm(divergence, 32, 1031);
  EXPECT_EQ(divergence.judge(1031, 0, 9, 1), Action::skip);
  EXPECT_EQ(divergence.counts().skipped, 3);
}

TEST(Divergence, TheBudgetOfRewindsIsThatOfAThousandStepsToo) {
  const auto spikes_at_1040_after = [](const std::vector<std::int64_t>& steps) {
    PassedOver passed;
    passed.spikes = steps;
    Divergence divergence(job("rewind"), passed);
    calm(divergence, 1000, 1040);
    return divergence.judge(1040, 4160, 9, 1);
  };
  EXPECT_EQ(spikes_at_1040_after({30, 31}), Action::rewind);
  EXPECT_EQ(spikes_at_1040_after({500, 501}), Action::stop);
}

TEST(Divergence, ALossThatFallsOrIsOffIsNoSpike) {
  Divergence divergence(job(), {});
  calm(divergence, 1, 30);
  EXPECT_EQ(divergence.judge(30, 0, 0.1, 1), Action::update);
  auto off = job();
  off.divergence.spike_zscore = 0;
  Divergence never(off, {});
  calm(never, 1, 30);
  EXPECT_EQ(never.judge(30, 0, 900, 1), Action::update);
}

TEST(Divergence, RewindsBehindTheDataThatLedToTheSpike) {
  Divergence divergence(job("rewind"), {});
  calm(divergence, 1, 30);
  EXPECT_EQ(divergence.judge(30, 116, 9, 1), Action::rewind);
  ASSERT_TRUE(divergence.ended() && divergence.verdict());
  EXPECT_FALSE(divergence.verdict()->stop);
  EXPECT_EQ(divergence.verdict()->not_after, 27) << "steps 28, 29 and 30 are given up";
  EXPECT_THAT(divergence.passed_over().flat(), ElementsAre(108, 120));

  // The next attempt, on what was written.
  Divergence next(job("rewind"), PassedOver::parse(divergence.passed_over().text(), "f"));
  EXPECT_EQ(next.data_of(104), 104);
  EXPECT_EQ(next.data_of(108), 120);
  EXPECT_EQ(next.trained(108), 108);
  EXPECT_EQ(next.trained(124), 112);
  EXPECT_EQ(next.counts().rewound, 1);
  calm(next, 1, 30);
  EXPECT_EQ(next.judge(30, 128, 9, 1), Action::rewind);
  Divergence last(job("rewind"), next.passed_over());
  calm(last, 1, 30);
  EXPECT_EQ(last.judge(30, 140, 9, 1), Action::stop) << "two rewinds were the budget";
}

// What the first rewind passed over was counted as the data of steps before the next spike: of three steps one was passed over.
TEST(Divergence, ASpikeRightBehindARewindPassesOverAsMuchAgain) {
  Divergence divergence(job("rewind"), {});
  calm(divergence, 1, 30);
  ASSERT_EQ(divergence.judge(30, 116, 9, 1), Action::rewind);
  Divergence next(job("rewind"), divergence.passed_over());
  calm(next, 1, 28);
  ASSERT_EQ(next.data_of(108), 120);
  EXPECT_EQ(next.judge(28, 120, 9, 1), Action::rewind);
  EXPECT_EQ(next.verdict()->not_after, 25) << "steps 26, 27 and 28 are given up";
  EXPECT_THAT(next.passed_over().flat(), ElementsAre(100, 124)) << "their data: 100, 104 and 120";
}

TEST(PassedOver, GoesBackOverWhatIsTrainedOn) {
  PassedOver passed;
  passed.add(20, 30);
  passed.add(40, 44);
  EXPECT_EQ(passed.back(50, 6), 44);
  EXPECT_EQ(passed.back(50, 7), 39);
  EXPECT_EQ(passed.back(44, 10), 30);
  EXPECT_EQ(passed.back(44, 11), 19);
  EXPECT_EQ(passed.back(44, 0), 44);
  EXPECT_EQ(passed.back(15, 6), 9) << "ranges behind it are none of its business";
  EXPECT_EQ(passed.back(30, 100), 0);
}

TEST(Divergence, StopsAtOnceWhereThatIsThePolicy) {
  Divergence divergence(job("stop"), {});
  calm(divergence, 1, 30);
  EXPECT_EQ(divergence.judge(30, 116, 9, 1), Action::stop);
  EXPECT_TRUE(divergence.verdict()->stop);
}

TEST(Divergence, NumbersThatAreNotFiniteEndTheAttemptAfterFiveInARow) {
  Divergence divergence(job(), {});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(divergence.judge(i, 0, 3, nan), Action::nonfinite);
  EXPECT_EQ(divergence.judge(5, 0, 3, 1), Action::update);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(divergence.judge(i, 0, nan, 1), Action::nonfinite);
  EXPECT_FALSE(divergence.ended());
  EXPECT_EQ(divergence.judge(9, 0, 3, nan), Action::nonfinite);
  EXPECT_TRUE(divergence.ended());
  EXPECT_FALSE(divergence.verdict()) << "the launcher chooses the checkpoint before the newest";
  EXPECT_EQ(divergence.counts().nonfinite, 9);
}

// They counted among the gradients that are not finite, which are a sign of divergence.
TEST(Divergence, OverflowsOfFp16EndNoAttemptAndCountByThemselves) {
  Divergence divergence(job(), {});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(divergence.overflow(65536), Action::nonfinite);
  EXPECT_FALSE(divergence.ended());
  EXPECT_EQ(divergence.nonfinite_steps(), 0);
  EXPECT_EQ(divergence.counts().overflowed, 20);
  EXPECT_EQ(divergence.counts().nonfinite, 0);
  EXPECT_NE(divergence.sentence().find("loss scale of 65536"), std::string::npos);
}

TEST(Divergence, AResumedRunJudgesAsOneThatNeverStopped) {
  Divergence straight(job(), {});
  calm(straight, 1, 30);
  EXPECT_EQ(straight.judge(30, 0, 9, 1), Action::skip);
  EXPECT_EQ(straight.judge(31, 0, 3, std::numeric_limits<double>::infinity()), Action::nonfinite);
  EXPECT_EQ(straight.overflow(65536), Action::nonfinite);
  RunState state;
  straight.put(state);
  Divergence resumed(job(), {});
  resumed.restore(state);
  RunState again;
  resumed.put(again);
  EXPECT_EQ(state, again);
  EXPECT_EQ(resumed.counts().overflowed, 1);
  for (auto* one : {&straight, &resumed}) {
    EXPECT_EQ(one->judge(32, 0, 9, 1), Action::skip);
    EXPECT_EQ(one->judge(33, 0, 9, 1), Action::stop);
  }
  EXPECT_EQ(straight.sentence(), resumed.sentence());
  Divergence old(job(), {});
  old.restore(RunState{});
  EXPECT_EQ(old.judge(1, 0, 900, 1), Action::update) << "a checkpoint of an older version holds none of it";
}

TEST(PassedOver, MergesWhatTouchesAndSkipsWholeSteps) {
  PassedOver passed;
  passed.add(20, 24);
  passed.add(8, 12);
  passed.add(12, 16);
  EXPECT_THAT(passed.flat(), ElementsAre(8, 16, 20, 24));
  EXPECT_EQ(passed.next(0, 4), 0);
  EXPECT_EQ(passed.next(5, 4), 16) << "a step that would reach into a range begins behind it";
  EXPECT_EQ(passed.next(16, 4), 16);
  EXPECT_EQ(passed.next(17, 4), 24);
  EXPECT_EQ(passed.next(12, 8), 24) << "and behind the one after, where it would reach into that";
  EXPECT_EQ(passed.before(22), 10);
  passed.add(0, 100);
  EXPECT_THAT(passed.flat(), ElementsAre(0, 100));
}

TEST(PassedOver, DamageIsRefusedWithASentence) {
  for (const char* text : {"{", "[]", "{\"sequences\":[5],\"spikes\":[]}", "{\"sequences\":[5,5],\"spikes\":[]}",
                           "{\"sequences\":[-1,5],\"spikes\":[]}", "{\"sequences\":[1,5]}",
                           "{\"sequences\":[1.5,5],\"spikes\":[]}", "{\"sequences\":5,\"spikes\":[]}",
                           "{\"sequences\":[1,5],\"spikes\":[1e30]}"}) {
    try {
      PassedOver::parse(text, "runs/x/passed_over.json");
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_THAT(error.what(), HasSubstr("runs/x/passed_over.json"));
    }
  }
}

}  // namespace
}  // namespace smlp
