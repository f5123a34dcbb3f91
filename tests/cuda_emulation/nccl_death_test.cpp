// An error that NCCL meets behind a call's back ends the job in bounded time, with a sentence.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/comm/ending.h"

namespace {

using smlp::test::Ending;
using testing::HasSubstr;
using testing::Not;

constexpr double bound_seconds = 45;  // a second, five until the thread ends the job itself, and a busy machine

Ending run_ranks(const char* way) { return smlp::test::run_two_ranks(SMLP_DEATH_RANKS, way); }

constexpr const char* sentence =
    "NCCL failed on rank 1 of 2, in all_reduce (call 2 of this group) or just before it: remote process exited or "
    "there was a network error: the peer of the test is gone";

TEST(NcclDeath, ALoopThatWaitsForTheDeviceIsLetGoAndTold) {
  for (const char* way : {"tell", "tell_by_the_host"}) {
    const auto ending = run_ranks(way);
    EXPECT_EQ(ending.status, 70) << ending.said;
    EXPECT_LT(ending.seconds, bound_seconds);
    EXPECT_THAT(ending.said, HasSubstr("the loop goes on, aborted: true"));
    EXPECT_THAT(ending.said, HasSubstr(fmt::format("told: {}", sentence))) << way;
  }
}

TEST(NcclDeath, AnExceptionThatLeavesTheCommunicatorsEndsTheJob) {
  const auto ending = run_ranks("unwind");
  EXPECT_EQ(ending.status, 70) << ending.said;
  EXPECT_LT(ending.seconds, bound_seconds);
}

TEST(NcclDeath, AnExceptionThatLeavesAHangBehindEndsTheJob) {
  const auto ending = run_ranks("unwind_from_a_hang");
  EXPECT_EQ(ending.status, 70) << ending.said;
  EXPECT_LT(ending.seconds, bound_seconds);
  EXPECT_THAT(ending.said, HasSubstr("NCCL failed on rank 1 of 2"));
}

TEST(NcclDeath, ALoopThatNeverCallsAgainIsEndedWithTheJob) {
  const auto ending = run_ranks("stay_away");
  EXPECT_EQ(ending.status, 70) << ending.said;
  EXPECT_LT(ending.seconds, bound_seconds);
  EXPECT_THAT(ending.said, HasSubstr(sentence));
  EXPECT_THAT(ending.said, Not(HasSubstr("told")));
}

}  // namespace
