#include "worker/heartbeat.h"

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

class HeartbeatTest : public testing::Test {
 protected:
  HeartbeatTest() : file_(std::filesystem::temp_directory_path() / ("smlp-heartbeat-" + std::to_string(getpid()))) {}
  ~HeartbeatTest() override { std::filesystem::remove(file_); }
  std::filesystem::path file_;
};

TEST_F(HeartbeatTest, TheFileSaysWhereTheLoopIs) {
  Heartbeat heartbeat(file_, 15, [](const std::string&) {});
  heartbeat.enter(Section::step, 42);
  std::this_thread::sleep_for(700ms);
  std::istringstream line(read_text(file_));
  std::int64_t step = 0, sequence = 0, process = 0;
  std::string section, host;
  double mark = 0, limit = 0;
  line >> step >> section >> sequence >> mark >> process >> host >> limit;
  EXPECT_TRUE(line) << read_text(file_);
  EXPECT_EQ(step, 42);
  EXPECT_EQ(section, "step");
  EXPECT_EQ(sequence, 1);
  EXPECT_EQ(process, getpid());
  EXPECT_GT(mark, 0);
  EXPECT_GT(limit, 15);
}

TEST_F(HeartbeatTest, LimitsAreLearnedAndNeverBelowTheFloor) {
  Heartbeat heartbeat(file_, 2, [](const std::string&) {});
  EXPECT_EQ(heartbeat.limit_seconds(Section::step), 300);
  for (const double seconds : {1.0, 1.2, 0.8}) heartbeat.step_took(seconds);
  EXPECT_DOUBLE_EQ(heartbeat.limit_seconds(Section::step), 10);
  for (int i = 0; i < 40; ++i) heartbeat.step_took(0.01);
  EXPECT_DOUBLE_EQ(heartbeat.limit_seconds(Section::step), 2);
  EXPECT_EQ(heartbeat.limit_seconds(Section::checkpoint), 600);
}

TEST_F(HeartbeatTest, AHungLoopEndsTheProcessWithASentence) {
  const auto hang = [this] {
    Heartbeat heartbeat(file_, 0.2, [](const std::string& sentence) { fprintf(stderr, "%s\n", sentence.c_str()); });
    for (int i = 0; i < 3; ++i) heartbeat.step_took(0.001);
    heartbeat.enter(Section::step, 7);
    std::this_thread::sleep_for(20s);
  };
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(hang(), testing::ExitedWithCode(Heartbeat::hung_status), "no progress for .* in section 'step' of step 7");
}

TEST_F(HeartbeatTest, ALoopThatBeatsGoesOn) {
  Heartbeat heartbeat(file_, 0.3, [](const std::string& sentence) { FAIL() << sentence; });
  for (int i = 0; i < 3; ++i) heartbeat.step_took(0.001);
  for (int i = 0; i < 20; ++i) {
    heartbeat.beat();
    std::this_thread::sleep_for(80ms);
  }
}

}  // namespace
}  // namespace smlp
