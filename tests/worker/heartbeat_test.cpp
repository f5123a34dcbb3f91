#include "worker/heartbeat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <sstream>
#include <string>
#include <thread>

#include "core/files.h"

namespace smlp {
namespace {

using namespace std::chrono_literals;

TEST(HangLimits, AreGenerousUntilEnoughIsKnown) {
  const HangLimits limits({.floor_seconds = 2, .factor = 10, .ceiling_seconds = 3600});
  EXPECT_EQ(limits.seconds(Section::step), 300);
  EXPECT_EQ(limits.seconds(Section::start), 300);
  EXPECT_EQ(limits.seconds(Section::checkpoint), 600);
}

TEST(HangLimits, AreLearnedPerSectionBetweenFloorAndCeiling) {
  HangLimits limits({.floor_seconds = 2, .factor = 10, .ceiling_seconds = 100});
  for (const double seconds : {1.0, 9.0, 1.0}) limits.took(Section::step, seconds);
  for (const double seconds : {0.01, 0.02, 0.01}) limits.took(Section::data, seconds);
  EXPECT_DOUBLE_EQ(limits.seconds(Section::step), 10);
  EXPECT_DOUBLE_EQ(limits.seconds(Section::data), 2);
  for (int i = 0; i < 3; ++i) limits.took(Section::checkpoint, 0.1);
  EXPECT_DOUBLE_EQ(limits.seconds(Section::checkpoint), 2 * HangLimits::disk_floors);
  for (int i = 0; i < 40; ++i) limits.took(Section::step, 50);
  EXPECT_DOUBLE_EQ(limits.seconds(Section::step), 100) << "the ceiling, and old durations are forgotten";
}

TEST(HangLimits, ARankThatWaitsForOthersGivesThemTheirTime) {
  for (const auto& [step, data] : {std::pair(1.0, 3.0), {3.0, 0.1}}) {
    HangLimits limits({.floor_seconds = 2, .factor = 10, .ceiling_seconds = 3600});
    for (int i = 0; i < 3; ++i) {
      limits.took(Section::exchange, 0.001);
      limits.took(Section::step, step);
      limits.took(Section::data, data);
    }
    EXPECT_DOUBLE_EQ(limits.seconds(Section::exchange), 30) << "a step of " << step << " s, data of " << data;
  }
}

TEST(HangLimits, AreKnownAtOnceAfterARestartAndLongerOnFewerRanks) {
  HangLimits before({.floor_seconds = 2, .factor = 10, .ceiling_seconds = 3600});
  before.on_ranks(8);
  for (int i = 0; i < 3; ++i) before.took(Section::step, 1);
  before.took(Section::start, 4);
  HangLimits after({.floor_seconds = 2, .factor = 10, .ceiling_seconds = 3600});
  after.recall(before.text());
  EXPECT_DOUBLE_EQ(after.seconds(Section::start), 40);
  EXPECT_DOUBLE_EQ(after.seconds(Section::step), 40) << "the first step of a process may set things up";
  after.on_ranks(2);
  EXPECT_DOUBLE_EQ(after.seconds(Section::start), 40);
  after.took(Section::step, 1);
  EXPECT_DOUBLE_EQ(after.seconds(Section::step), 40) << "a quarter of the ranks";
  after.on_ranks(16);
  EXPECT_DOUBLE_EQ(after.seconds(Section::step), 10);
}

TEST(HangLimits, DamageOfTheFileIsNotKnown) {
  for (const char* text : {"", "{", "[]", R"({"step":"x","starts":3,"ranks":"y"})", R"({"step":-1,"starts":[-2,"z"],"ranks":-3})"}) {
    HangLimits limits({});
    limits.recall(text);
    EXPECT_EQ(limits.seconds(Section::step), 300) << text;
    EXPECT_EQ(limits.seconds(Section::start), 300) << text;
  }
}

class HeartbeatTest : public testing::Test {
 protected:
  HeartbeatTest() {
    std::string pattern = testing::TempDir() + "smlp-heartbeat-XXXXXX";
    run.root = mkdtemp(pattern.data());
    std::filesystem::create_directories(run.heartbeats());
  }
  ~HeartbeatTest() override { std::filesystem::remove_all(run.root); }

  static void learn(Heartbeat& heartbeat) {
    for (int i = 0; i < 5; ++i) {
      heartbeat.enter(Section::step, i);
      heartbeat.step_done(0.001, true);
    }
  }
  RunDirectory run;
};

TEST_F(HeartbeatTest, TheFileSaysWhereTheLoopIs) {
  Heartbeat heartbeat(run, 3, 1, {}, [](const std::string&) {});
  heartbeat.look_at([] { return LoopPlace{71, true, "world:all_reduce:55", "2:backward"}; });
  heartbeat.enter(Section::step, 42);
  for (const double end = monotonic_seconds() + 30; !read_if_there(run.heartbeat(1)).starts_with("42 ") && monotonic_seconds() < end;) {
    std::this_thread::sleep_for(20ms);
  }
  std::istringstream line(read_text(run.heartbeat(1)));
  std::int64_t step = 0, sequence = 0, process = 0, attempt = 0, pulse = 0, collectives = 0;
  std::string section, host, call, block;
  double mark = 0, limit = 0;
  bool inside = false;
  line >> step >> section >> sequence >> mark >> process >> host >> limit >> attempt >> pulse >> collectives >> inside >>
      call >> block;
  EXPECT_TRUE(line) << read_text(run.heartbeat(1));
  EXPECT_EQ(step, 42);
  EXPECT_EQ(section, "exchange") << "a step that is inside a collective";
  EXPECT_EQ(sequence, 1);
  EXPECT_EQ(process, getpid());
  EXPECT_GT(mark, 0);
  EXPECT_GT(limit, 15);
  EXPECT_EQ(attempt, 3);
  EXPECT_GT(pulse, 0);
  EXPECT_EQ(collectives, 71);
  EXPECT_TRUE(inside);
  EXPECT_EQ(call, "world:all_reduce:55");
  EXPECT_EQ(block, "2:backward");
  heartbeat.look_at({});
}

TEST_F(HeartbeatTest, AHungLoopEndsTheProcessWithASentence) {
  const auto hang = [this] {
    Heartbeat heartbeat(run, 1, 0, {.floor_seconds = 0.2, .factor = 2, .ceiling_seconds = 60},
                        [this](const std::string& sentence) {
                          fprintf(stderr, "%s; %s\n", sentence.c_str(), read_text(run.heartbeat(0)).c_str());
                        });
    heartbeat.look_at([] { return LoopPlace{71, true, "world:all_reduce:55", "2:backward"}; });
    learn(heartbeat);
    heartbeat.enter(Section::step, 7);
    std::this_thread::sleep_for(20s);
  };
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(hang(), testing::ExitedWithCode(hung_status),
              "no progress for .* in section 'exchange' of step 7, block 2:backward, 71 collectives begun, inside "
              "world:all_reduce:55, .*; 7 exchange .* 71 1 world:all_reduce:55 2:backward gives_up");
}

// Its own code too: the launcher knows a hang by it, and took one whose report hung as well for a death by signal.
TEST_F(HeartbeatTest, AReportThatNeverEndsKeepsNoHungRank) {
  const auto hang = [this] {
    Heartbeat heartbeat(run, 1, 0, {.floor_seconds = 0.2, .factor = 2, .ceiling_seconds = 60},
                        [](const std::string&) { std::this_thread::sleep_for(60s); });
    learn(heartbeat);
    heartbeat.enter(Section::step, 7);
    std::this_thread::sleep_for(60s);
  };
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(hang(), testing::ExitedWithCode(hung_status), "");
}

// A save that the disk never answered held up nobody's loop, so nobody called it a hang: the ranks asked each other how far
// they were until the job's time was over, or no checkpoint was ever begun again.
TEST_F(HeartbeatTest, ADiskThatNeverAnswersASaveIsAHangThoughTheLoopGoesOn) {
  const auto hang = [this] {
    Heartbeat heartbeat(run, 1, 0, {.floor_seconds = 0.1, .factor = 2, .ceiling_seconds = 60},
                        [this](const std::string& sentence) {
                          fprintf(stderr, "%s; %s\n", sentence.c_str(), read_text(run.heartbeat(0)).c_str());
                        });
    for (int i = 0; i < 3; ++i) heartbeat.saved(0.01);
    const auto began = std::chrono::steady_clock::now();
    heartbeat.look_at([began, calls = 0]() mutable {
      const std::chrono::duration<double> since = std::chrono::steady_clock::now() - began;
      return LoopPlace{++calls, false, "world:all_reduce:9", "0:forward", OwnWriting{Tier::shared, 20, since.count()}};
    });
    for (int i = 0; i < 2000; ++i) {
      heartbeat.enter(Section::step, 30 + i);
      std::this_thread::sleep_for(10ms);
    }
  };
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(hang(), testing::ExitedWithCode(hung_status),
              "no progress for .* .limit 0.4 s. in section 'checkpoint' of step 20: the disk of the run directory does not "
              "answer .*; [0-9]+ step .* 0:forward disk [0-9.]+ 0.400 gives_up");
}

TEST_F(HeartbeatTest, ASaveWhoseDiskAnswersTakesItsTime) {
  Heartbeat heartbeat(run, 1, 0, {.floor_seconds = 0.1, .factor = 2, .ceiling_seconds = 60},
                      [](const std::string& sentence) { ADD_FAILURE() << sentence; });
  for (int i = 0; i < 3; ++i) heartbeat.saved(0.01);
  heartbeat.look_at([calls = 0]() mutable { return LoopPlace{++calls, false, "-", "-", OwnWriting{Tier::local, 20, 0.3}}; });
  std::this_thread::sleep_for(1500ms);
  EXPECT_THAT(read_text(run.heartbeat(0)), testing::HasSubstr("disk 0.300 0.400 "));
  heartbeat.look_at({});
}

TEST_F(HeartbeatTest, ALoopThatBeatsOrTalksGoesOn) {
  Heartbeat heartbeat(run, 1, 0, {.floor_seconds = 0.3, .factor = 2, .ceiling_seconds = 60},
                      [](const std::string& sentence) { ADD_FAILURE() << sentence; });
  learn(heartbeat);
  heartbeat.enter(Section::step, 7);
  for (int i = 0; i < 15; ++i) {
    heartbeat.beat();
    std::this_thread::sleep_for(80ms);
  }
  std::int64_t calls = 0;
  heartbeat.look_at([&calls] { return LoopPlace{++calls, false, "-", "-"}; });
  std::this_thread::sleep_for(1500ms);  // three looks, of which each sees other calls
  heartbeat.beat();
  heartbeat.look_at({});
}

TEST_F(HeartbeatTest, TheLongestSilenceOfASectionIsWhatIsLearned) {
  Heartbeat heartbeat(run, 1, 0, {.floor_seconds = 0.001, .factor = 10, .ceiling_seconds = 60}, [](const std::string&) {});
  for (int i = 0; i < 5; ++i) {
    heartbeat.enter(Section::data, i);
    std::this_thread::sleep_for(5ms);
    heartbeat.enter(Section::step, i);
    heartbeat.beat();
    std::this_thread::sleep_for(40ms);
    heartbeat.beat();
    heartbeat.step_done(0.01, false);
  }
  EXPECT_GE(heartbeat.limit_seconds(Section::data), 0.05);
  EXPECT_GE(heartbeat.limit_seconds(Section::step), 0.4);
  EXPECT_LT(heartbeat.limit_seconds(Section::data), heartbeat.limit_seconds(Section::step));
  EXPECT_EQ(heartbeat.limit_seconds(Section::start), 60) << "a start without a checkpoint tells nothing of one with it";
}

TEST_F(HeartbeatTest, WhatIsLearnedIsKeptInTheRunDirectoryByRankZeroAlone) {
  const HangSettings settings{.floor_seconds = 0.5, .factor = 2, .ceiling_seconds = 500};
  { Heartbeat one(run, 1, 1, settings, [](const std::string&) {}); learn(one); }
  EXPECT_FALSE(std::filesystem::exists(run.limits()));
  { Heartbeat zero(run, 1, 0, settings, [](const std::string&) {}); learn(zero); }
  Heartbeat next(run, 2, 1, settings, [](const std::string&) {});
  EXPECT_EQ(next.limit_seconds(Section::start), 0.5 * HangLimits::disk_floors);
  EXPECT_EQ(next.limit_seconds(Section::step), 0.5 * HangLimits::disk_floors);
}

}  // namespace
}  // namespace smlp
