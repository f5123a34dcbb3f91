// What a run says of itself, and disks that don't take it.
#include "worker/run_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/files.h"
#include "core/goodput.h"
#include "core/json_lines.h"
#include "core/json_text.h"

namespace smlp {
namespace {

using testing::ElementsAre;

class RunLogTest : public testing::Test {
 protected:
  RunLogTest() {
    std::string pattern = testing::TempDir() + "smlp-run-log-XXXXXX";
    run_.root = mkdtemp(pattern.data());
  }
  ~RunLogTest() override { std::filesystem::remove_all(run_.root); }

  RunLog log(const JobConfig& job = {}) { return RunLog(run_, 1, job, *world_, 1, 1, ""); }
  static StepLine step(std::int64_t number, double loss_scale = 1) {
    StepLine line;
    line.step = number;
    line.seconds = 1;
    line.result.loss_scale = loss_scale;
    return line;
  }
  std::vector<std::string> events(const std::string& kind) const {
    std::vector<std::string> details;
    read_json_lines(run_.events(), [&](const nlohmann::json& line) {
      if (text_in(line, "event") == kind) details.push_back(text_in(line, "detail"));
    });
    return details;
  }

  RunDirectory run_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  std::unique_ptr<Communicator> world_ = make_solo(*backend_);
};

// A disk that did not answer for a quarter of a minute ended the attempt, and each step waited for five calls of it.
TEST_F(RunLogTest, AStepDoesNotWaitForTheDiskItsLineGoesTo) {
  ASSERT_EQ(mkfifo(run_.metrics().c_str(), 0600), 0);
  const int reader = ::open(run_.metrics().c_str(), O_RDONLY | O_NONBLOCK);  // takes 64 KiB, then waits to be read
  std::string found;
  {
    RunLog run_log = log();
    for (std::int64_t number = 1; number <= 1000; ++number) run_log.step(step(number));
    std::array<char, 4096> some;
    while (found.find("\"step\":1000,") == found.npos) {
      const auto bytes = ::read(reader, some.data(), some.size());
      if (bytes > 0) found.append(some.data(), static_cast<std::size_t>(bytes));
      else std::this_thread::yield();
    }
  }
  ::close(reader);
  EXPECT_LT(found.find("\"step\":1,"), found.find("\"step\":2,"));
}

// Sums of gradients are waited for as exchanges are, and a save's stall is no work.
TEST_F(RunLogTest, AStepsSecondsGoWhereTheyWereSpent) {
  nlohmann::json zeros = nlohmann::json::object();
  for (const char* name : spent_names) zeros[name] = 0;
  const nlohmann::json before = {{"time", unix_seconds() - 100}, {"highest_step", 0}, {"goodput_seconds_total", zeros}};
  append_line(run_.metrics(), json_text(before));
  {
    RunLog run_log = log();
    auto line = step(1);
    line.seconds = 20;
    line.step_tokens = 1000;
    auto& phases = line.result.phases;
    phases[Phase::data] = 1;
    phases[Phase::exchange] = 2;
    phases[Phase::reduce] = 3;
    phases[Phase::checkpoint] = 4;
    line.evaluation_seconds = 5;
    run_log.step(line);
  }
  nlohmann::json last;
  read_json_lines(run_.metrics(), [&](const nlohmann::json& line) { last = line; });
  const auto spent = [&](const char* name) { return last.at("goodput_seconds_total").at(name).get<double>(); };
  EXPECT_NEAR(spent("data_stall"), 1, 1e-6);
  EXPECT_NEAR(spent("exchange_wait"), 5, 1e-6);
  EXPECT_NEAR(spent("checkpoint_stall"), 4, 1e-6);
  EXPECT_NEAR(spent("productive"), 20 - 10 + 5, 1e-6) << "the evaluation is work";
  EXPECT_NEAR(spent("restart"), 100 - 25, 2);
  EXPECT_EQ(last.at("step_seconds"), 20);
  EXPECT_EQ(last.at("tokens_per_second"), 50);
}

TEST_F(RunLogTest, AllLinesAreThereWhenTheLogHasEnded) {
  for (std::int64_t number = 1; number <= 500; number += 100) {
    RunLog run_log = log();
    for (std::int64_t k = number; k < number + 100; ++k) run_log.step(step(k));
  }
  std::int64_t expected = 0;
  read_json_lines(run_.metrics(), [&](const nlohmann::json& line) { EXPECT_EQ(integer_in(line, "step"), ++expected); });
  EXPECT_EQ(expected, 500);
}

TEST_F(RunLogTest, WhatWentWrongAfterAPublicationIsAnEvent) {
  RunLog run_log = log();
  run_log.saved({.step = 10, .published = true, .note = "step 10 is published, but: an old one stays"});
  run_log.saved({.step = 20, .published = true});
  EXPECT_THAT(events("checkpoint_published"), ElementsAre("step-00000010", "step-00000020"));
  EXPECT_THAT(events("checkpoint_untidy"), ElementsAre("step 10 is published, but: an old one stays"));
}

// To Prometheus all tasks of an array were one run.
TEST_F(RunLogTest, TasksOfAnArrayAreRunsOfTheirOwn) {
  JobConfig job;
  job.name = "job";
  const auto labels = [&](const RunDirectory& run) {
    std::filesystem::create_directories(run.root);
    const RunLog log(run, 1, job, *world_, 1, 1, "");
    return read_json_file(run.targets(), 1 << 20).at(0).at("labels");
  };
  EXPECT_EQ(labels(run_), (nlohmann::json{{"run", "job"}, {"instance", "rank-0"}}));
  EXPECT_EQ(labels({run_.root / "task-3"}), (nlohmann::json{{"run", "job/task-3"}, {"instance", "rank-0"}}));
  write_atomically(run_.identity(), R"({"id":"abc"})");
  EXPECT_EQ(labels(run_), (nlohmann::json{{"run", "job"}, {"run_id", "abc"}, {"instance", "rank-0"}}));
}

// Once it had fallen to 1 it was no more told, and the gauge stayed where it had been.
TEST_F(RunLogTest, TheLossScaleOfFp16IsToldAlsoWhereItIsOne) {
  JobConfig job;
  const auto scales = [&] {
    std::vector<std::optional<double>> told;
    read_json_lines(run_.metrics(), [&](const nlohmann::json& line) { told.push_back(number_in(line, "loss_scale")); });
    return told;
  };
  log(job).step(step(1));
  job.train.precision = "fp16";
  {
    auto run_log = log(job);
    run_log.step(step(2, 2));
    run_log.step(step(3, 1));
  }
  EXPECT_THAT(scales(), ElementsAre(std::nullopt, 2, 1));
}

// After a start from a save on the nodes nobody knew of the shared directory's newest, until the next one.
TEST_F(RunLogTest, AStartFromANodeKnowsTheNewestOfTheSharedDirectoryToo) {
  {
    RunLog run_log = log();
    run_log.resumed(14, 1000, {});
    run_log.found({Tier::local, 14, 2000.5});
    run_log.found({Tier::shared, 10, 1000.5});
    run_log.step(step(15));
  }
  const auto line = read_json_file(run_.metrics(), 1 << 20);
  EXPECT_EQ(line["local_checkpoint_last_step"], 14);
  EXPECT_EQ(line["checkpoint_last_step"], 10);
  EXPECT_EQ(line["checkpoint_last_timestamp_seconds"], 1000.5);
}

// A full disk ended the attempt, at this file alone.
TEST_F(RunLogTest, TargetsThatCannotBeWrittenEndNoAttempt) {
  std::filesystem::create_directories(run_.targets() / "in the way");
  EXPECT_NO_THROW(log());
}

}  // namespace
}  // namespace smlp
