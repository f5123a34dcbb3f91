// How the launcher judges ranks by their heartbeats, and whom it blames.
#include "launcher/heartbeat_watch.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/files.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Watch : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-watch-XXXXXX";
    run.root = mkdtemp(pattern.data());
    std::filesystem::create_directories(run.heartbeats());
  }
  void TearDown() override { std::filesystem::remove_all(run.root); }

  void beat(int rank, int step, int sequence, double limit, const char* section = "step", int attempt = 1) {
    beat(rank, fmt::format("{} {} {} 12.5 4242 elsewhere {:.3f} {} {} {} 0 world:barrier:7 1:forward", step, section,
                           sequence, limit, attempt, ++pulse, sequence));
  }
  void beat(int rank, const std::string& words) { write_atomically(run.heartbeat(rank), fmt::format("{:<255}\n", words)); }

  RunDirectory run;
  int pulse = 0;
};

TEST(Beat, IsReadAsTheWorkerWritesIt) {
  const auto beat = parse_beat(
      "62 evaluation 311 1234.500 4711 node3 15.000 2 99 1234 1 world:all_reduce:77 3:backward            ");
  ASSERT_TRUE(beat);
  EXPECT_EQ(beat->step, 62);
  EXPECT_EQ(beat->section, "evaluation");
  EXPECT_EQ(beat->sequence, 311);
  EXPECT_EQ(beat->pid, 4711);
  EXPECT_EQ(beat->host, "node3");
  EXPECT_EQ(beat->limit_seconds, 15);
  EXPECT_EQ(beat->attempt, 2);
  EXPECT_EQ(beat->pulse, 99);
  EXPECT_EQ(beat->collectives, 1234);
  EXPECT_TRUE(beat->inside);
  EXPECT_EQ(beat->call, "world:all_reduce:77");
  EXPECT_EQ(beat->block, "3:backward");
  EXPECT_FALSE(beat->gives_up);
  EXPECT_TRUE(parse_beat("6 step 31 1.5 47 node3 15.0 2 99 12 1 world:barrier:7 3:backward gives_up   ").value().gives_up);
  EXPECT_FALSE(beat->left_by_disk());
  const auto saving = parse_beat("6 step 31 1.5 47 node3 15.0 2 99 12 1 world:barrier:7 3:backward disk 7.250 60.000   ");
  ASSERT_TRUE(saving);
  EXPECT_EQ(saving->disk_seconds, 7.25);
  EXPECT_EQ(saving->disk_limit_seconds, 60);
  EXPECT_FALSE(saving->left_by_disk() || saving->gives_up);
  const auto left = parse_beat("6 step 31 1.5 47 node3 15.0 2 99 12 1 world:barrier:7 3:backward disk 60.25 60.0 gives_up ");
  EXPECT_TRUE(left && left->left_by_disk() && left->gives_up);
  EXPECT_FALSE(parse_beat("62 evaluation 311 1234.500 4711 node3 15.000")) << "of an older version";
  EXPECT_FALSE(parse_beat("62 evaluation 311"));
  EXPECT_FALSE(parse_beat(""));
}

TEST_F(Watch, JudgesARankByItsOwnLimitAndBlamesTheOneBehind) {
  HeartbeatWatch watch(run, 1, 2, {.start_seconds = 3, .grace_seconds = 2});
  double now = 100;
  const auto pass = [&](double seconds) {
    std::optional<std::string> verdict;
    for (double end = now + seconds; now < end && !verdict; now += 0.5) verdict = watch.look(now);
    return verdict;
  };
  EXPECT_FALSE(pass(2));
  beat(0, 1, 5, 4);
  beat(1, 1, 4, 4);
  EXPECT_FALSE(pass(5.5));
  beat(0, 2, 6, 4);
  beat(1, 2, 5, 4);
  EXPECT_FALSE(pass(5.5)) << "progress starts the count again";
  EXPECT_THAT(pass(2).value_or(""), AllOf(HasSubstr("rank 1 makes no progress"), HasSubstr("in section 'step' of step 2")));
}

TEST_F(Watch, CountsNoPauseOfItsOwnAgainstTheRanks) {
  HeartbeatWatch watch(run, 1, 1, {.start_seconds = 30, .grace_seconds = 2});
  beat(0, 1, 5, 4);
  EXPECT_FALSE(watch.look(100));
  EXPECT_FALSE(watch.look(1000)) << "the launcher itself was stopped for long";
}

TEST_F(Watch, WantsASignOfLifeFromEveryRank) {
  HeartbeatWatch watch(run, 1, 2, {.start_seconds = 3, .grace_seconds = 2});
  beat(0, 1, 5, 400);
  std::optional<std::string> verdict;
  for (double now = 0; now < 10 && !verdict; now += 0.5) verdict = watch.look(now);
  EXPECT_THAT(verdict.value_or(""), HasSubstr("rank 1 gave no sign of life within 3 s"));
}

// A rank of attempt 1 on a node that was cut off comes back and writes where rank 0 of attempt 2 does.
TEST_F(Watch, AStaleRankOfAnEarlierAttemptDoesNotCount) {
  HeartbeatWatch watch(run, 2, 1, {.start_seconds = 3, .grace_seconds = 2});
  std::optional<std::string> verdict;
  for (double now = 0; now < 10 && !verdict; now += 0.5) {
    beat(0, 7, static_cast<int>(now * 2), 400, "step", 1);
    verdict = watch.look(now);
  }
  EXPECT_THAT(verdict.value_or(""), HasSubstr("rank 0 gave no sign of life"));
  EXPECT_FALSE(watch.all_present());
}

TEST_F(Watch, BlamesTheRankThatFellSilentBeforeThoseThatWaitForIt) {
  HeartbeatWatch watch(run, 1, 3, {});
  const auto place = [&](int rank, int at_pulse, const char* collectives) {
    beat(rank, fmt::format("30 step 90 1.0 4242 node{} 15.0 1 {} {} world:all_reduce:77 1:backward", rank, at_pulse,
                           collectives));
  };
  for (int second = 0; second < 5; ++second) {
    place(0, second, "70 1");
    place(1, 1, "70 1");  // stopped while it waited like the others
    place(2, second, "69 0");
    watch.look(second);
  }
  EXPECT_EQ(watch.last_rank(), 1);
  EXPECT_THAT(watch.describe(1), AllOf(HasSubstr("stopped or cut off"), HasSubstr("node1")));
  place(1, 2, "70 1");
  watch.look(5);
  EXPECT_EQ(watch.last_rank(), 2) << "all write: the one that is not in the collective of the others";
  EXPECT_THAT(watch.describe(2), AllOf(HasSubstr("step 30, block 1:backward, 69 collectives begun"), HasSubstr("node2")));
}

// mpirun continues the ranks that it ends: the stopped one wrote once more and was blamed no longer.
TEST_F(Watch, BlamesTheSilentRankThoughItIsWokenToBeEnded) {
  HeartbeatWatch watch(run, 1, 2, {});
  const auto place = [&](int rank, int at_pulse, const char* last = "") {
    beat(rank, fmt::format("37 step 90 1.0 4242 node{} 3.0 1 {} 70 1 world:all_reduce:77 1:forward{}", rank, at_pulse,
                           last));
  };
  for (int second = 0; second < 4; ++second) {
    place(0, second);
    place(1, 1);
    watch.look(second);
  }
  place(0, 4, " gives_up");
  place(1, 2);
  for (int second = 4; second < 7; ++second) {
    watch.look(second);
    place(1, second);
  }
  EXPECT_EQ(watch.last_rank(), 1);
  EXPECT_THAT(watch.describe(1), HasSubstr("stopped or cut off, silent for"));
}

// All ranks ask each other how far the shards are: whose line was read last, one collective ahead, said nothing.
TEST_F(Watch, BlamesTheRankWhoseSaveTheDiskDoesNotAnswer) {
  HeartbeatWatch watch(run, 1, 3, {});
  const auto place = [&](int rank, int second, const char* last = "") {
    beat(rank, fmt::format("40 checkpoint 90 1.0 4242 node{} 8.0 1 {} {} 1 world:all_reduce:77 1:forward{}", rank, second,
                           500 * second + rank, last));
  };
  for (int second = 0; second < 8; ++second) {
    place(0, second);
    place(1, second, fmt::format(" disk {}.000 8.000", second).c_str());
    place(2, second, " disk 0.010 8.000");
    EXPECT_FALSE(watch.look(second));
  }
  EXPECT_EQ(watch.last_rank(), 0) << "a save under way is no hang";
  place(0, 8);
  place(1, 8, " disk 8.100 8.000 gives_up");
  place(2, 8);
  watch.look(8);
  EXPECT_EQ(watch.last_rank(), 1);
  EXPECT_THAT(watch.describe(1), AllOf(HasSubstr("its part of a save gets no answer from the disk"), HasSubstr("node1")));
  EXPECT_THAT(watch.describe(0), Not(HasSubstr("disk")));
}

TEST_F(Watch, CollectivesAreProgressToo) {
  HeartbeatWatch watch(run, 1, 1, {.start_seconds = 30, .grace_seconds = 1});
  for (int second = 0; second < 20; ++second) {
    beat(0, fmt::format("30 step 90 1.0 4242 here 3.0 1 {} {} 1 world:all_reduce:7 1:forward", second, 100 + second));
    EXPECT_FALSE(watch.look(second));
  }
}

TEST_F(Watch, KnowsWhetherTheRanksHaveLeftTheirStart) {
  HeartbeatWatch watch(run, 1, 2, {});
  beat(0, 0, 1, 300, "start");
  watch.read();
  EXPECT_FALSE(watch.all_present());
  beat(1, 0, 1, 300, "start");
  watch.read();
  EXPECT_TRUE(watch.all_present());
  EXPECT_FALSE(watch.past_start());
  beat(1, 0, 2, 300);
  watch.read();
  EXPECT_TRUE(watch.past_start());
}

}  // namespace
}  // namespace smlp
