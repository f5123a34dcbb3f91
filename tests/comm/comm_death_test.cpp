// A rank that fails ends the whole job in bounded time, with a status that the supervisor can read.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

namespace {

struct Ending {
  int status;
  double seconds;
  std::string said;
};

Ending run_ranks(const char* way) {
  const auto begin = std::chrono::steady_clock::now();
  const auto command =
      fmt::format("timeout -s KILL 20 {} --allow-run-as-root --oversubscribe --bind-to none -n 2 {} {} 2>&1",
                  SMLP_MPIRUN, SMLP_DEATH_RANKS, way);
  FILE* pipe = popen(command.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  std::string said;
  std::array<char, 256> line{};
  while (std::fgets(line.data(), line.size(), pipe) != nullptr) said += line.data();
  const int status = pclose(pipe);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, spent.count(), said};
}

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
