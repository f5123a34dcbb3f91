// A rank that fails ends the whole job in bounded time, with a status that the supervisor can read.
#include <gtest/gtest.h>

#include "tests/comm/ending.h"

namespace {

using smlp::test::Ending;

Ending run_ranks(const char* way) { return smlp::test::run_two_ranks(SMLP_DEATH_RANKS, way); }

constexpr double bound_seconds = 30;

TEST(CommDeath, AnExceptionThatLeavesTheCommunicatorsEndsTheJob) {
  const auto ending = run_ranks("unwind");
  EXPECT_EQ(ending.status, 70) << ending.said;
  EXPECT_LT(ending.seconds, bound_seconds);
}

TEST(CommDeath, AbortEndsTheJobWithItsStatus) {
  const auto ending = run_ranks("abort");
  EXPECT_EQ(ending.status, 76) << ending.said;
  EXPECT_LT(ending.seconds, bound_seconds);
}

TEST(CommDeath, AbortWorksFromAThreadBesideAHungCollective) {
  const auto ending = run_ranks("thread");
  EXPECT_EQ(ending.status, 71) << ending.said;
  EXPECT_LT(ending.seconds, bound_seconds);
}

TEST(CommDeath, AFailedCollectiveIsASentenceWithItsNameAndRank) {
  const auto ending = run_ranks("disagree");
  EXPECT_EQ(ending.status, 70) << ending.said;
  EXPECT_NE(ending.said.find("all_to_all failed on rank 1 of 2: "), std::string::npos) << ending.said;
  EXPECT_LT(ending.seconds, bound_seconds);
}

}  // namespace
