// What goes wrong around saves that hold is told, and ends nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/disk.h"
#include "core/error.h"
#include "core/host_name.h"
#include "tests/checkpoint/newer_format.h"
#include "tests/checkpoint/sample.h"
#include "tests/without_rights.h"
#include "worker/checkpointing.h"
#include "worker/load_together.h"
#include "worker/restore.h"

namespace smlp {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

void save_alone(Checkpointing& saves, std::int64_t step) {
  test::SampleRank memory(0, 1, test::few_tensors());
  memory.fill(step);
  const auto world = make_solo(memory.backend());
  saves.begin(memory.backend(), memory.pieces(), test::sample_state(step));
  while (!saves.idle()) {
    std::array<double, Checkpointing::flag_count> flags{};
    saves.fill(flags);
    saves.agree(flags, *world);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Only tests asked for it: LATEST stayed where it was, and old checkpoints stayed for good, without a word.
TEST(SaveTrouble, WhatWentWrongAfterAPublicationIsTold) {
  const test::Scratch scratch;
  fs::create_directories(scratch.root() / "LATEST" / "in the way");
  std::vector<SaveOutcome> told;
  Checkpointing saves(test::options_for(scratch.root(), 1), [&](const SaveOutcome& outcome) { told.push_back(outcome); });
  save_alone(saves, 10);
  fs::remove_all(scratch.root() / "LATEST");
  save_alone(saves, 20);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_TRUE(told[0].published);
  EXPECT_THAT(told[0].note, HasSubstr("step-00000010 is published, but: renaming"));
  EXPECT_TRUE(told[1].published);
  EXPECT_EQ(told[1].note, "");
}

// It was the time of rank 0's shard alone: the warning before a time limit came too late, and limits of hangs were too short
// where publishing is what takes long.
TEST(SaveTrouble, ASaveTakesUntilItIsPublished) {
  const test::Scratch scratch;
  std::vector<SaveOutcome> told;
  Checkpointing saves(test::options_for(scratch.root(), 1), [&](const SaveOutcome& outcome) { told.push_back(outcome); });
  fault_point = [](const char* operation) {
    if (std::string_view(operation) == "rename") std::this_thread::sleep_for(std::chrono::milliseconds(300));
  };
  save_alone(saves, 10);
  fault_point = nullptr;
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(told[0].published);
  EXPECT_GT(told[0].seconds, 0.3);
}

// Neither said that it went on: a healthy start that took longer than its limit was ended as hung.
TEST(SaveTrouble, WhoReadsACheckpointHearsOfEachBlock) {
  const test::Scratch scratch;
  const std::vector<test::SampleTensor> large = {{"large", {1 << 20}, DType::f32, test::Spread::replicated}};
  ASSERT_TRUE(test::save(test::options_for(scratch.root(), 1), 10, large).published);
  const auto backend = make_cpu_backend();
  const auto world = make_solo(*backend);
  int verified = 0, loaded = 0;
  const auto chosen = choose_checkpoint({.checkpoints = scratch.root(), .not_after = std::nullopt}, *world,
                                        [](const fs::path&, const std::string& why) { ADD_FAILURE() << why; },
                                        [&] { ++verified; });
  ASSERT_TRUE(chosen);
  EXPECT_GE(verified, 4) << "of 1 MiB each";
  test::SampleRank memory(0, 1, large);
  load_together(shared_save(chosen->shared, 1), *world, memory.backend(), memory.pieces(), {.between = [&] { ++loaded; }});
  EXPECT_GE(loaded, 4);
}

// It trained on for nobody, as long as it was let, where locks do not reach from host to host.
TEST(SaveTrouble, AnAttemptHearsThatANewerOneHasTakenOver) {
  const test::Scratch scratch;
  std::vector<SaveOutcome> told;
  Checkpointing saves(test::options_for(scratch.root(), 1), [&](const SaveOutcome& outcome) { told.push_back(outcome); });
  save_alone(saves, 10);
  std::ofstream(scratch.root() / "ATTEMPT") << "2\n";
  save_alone(saves, 20);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_FALSE(told[0].superseded);
  EXPECT_TRUE(told[1].superseded);
  EXPECT_THAT(told[1].failure, HasSubstr("attempt 2 of this run has taken over"));
  EXPECT_THAT(test::names_in(scratch.root()), testing::Not(testing::Contains("step-00000020")));
}

bool refused = false;
void refuse_the_first_folder(const char* operation) {
  if (std::string_view(operation) == "remove folder" && !std::exchange(refused, true)) {
    throw Error(ExitCode::io_failed, "planted: a folder can't be removed");
  }
}

// Each attempt ended with 74 at its start, until somebody removed it by hand.
TEST(SaveTrouble, ALeftoverThatCannotBeRemovedEndsNoAttempt) {
  const test::Scratch scratch;
  for (const char* name : {"step-00000010.attempt-0001.tmp", "step-00000020.attempt-0001.tmp"}) {
    fs::create_directories(scratch.root() / name);
  }
  const auto backend = make_cpu_backend();
  const auto world = make_solo(*backend);
  std::vector<std::string> warnings;
  const RestoreOptions options{.checkpoints = scratch.root(),
                               .not_after = std::nullopt,
                               .warn = [&](const std::string& sentence) { warnings.push_back(sentence); }};
  refused = false;
  fault_point = &refuse_the_first_folder;
  EXPECT_NO_THROW(EXPECT_FALSE(choose_checkpoint(options, *world, [](const fs::path&, const std::string&) {}, [] {})));
  fault_point = nullptr;
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("planted: a folder can't be removed")));
  EXPECT_THAT(test::names_in(scratch.root()), ElementsAre("step-00000010.attempt-0001.tmp"));
}

// It was set aside for a disk that failed for a moment, as was the one before it: the run began at its first step, and
// later saves deleted them all.
TEST(SaveTrouble, AStartLeavesWhatCannotBeReadNowToTheNext) {
  const test::Scratch scratch;
  for (const std::int64_t step : {10, 20}) ASSERT_TRUE(test::save(test::options_for(scratch.root(), 1), step).published);
  const auto newest = test::step_path(scratch.root(), 20);
  const auto before = test::names_in(scratch.root());
  const auto backend = make_cpu_backend();
  const auto world = make_solo(*backend);
  const auto choose = [&] {
    const auto rejected = [](const fs::path& path, const std::string& why) { ADD_FAILURE() << path << ": " << why; };
    return choose_checkpoint({.checkpoints = scratch.root(), .not_after = std::nullopt}, *world, rejected, [] {});
  };
  fs::permissions(scratch.root(), fs::perms::all);
  for (const char* name : {"manifest.json", "rank-0000.h5"}) {
    fs::permissions(newest / name, fs::perms::none);
    try {
      const test::WithoutRights nobody;
      choose();
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io_failed);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("whether " + newest.string() + " holds can't be told: rank 0 on " + host_name()),
                                      HasSubstr((newest / name).string()), HasSubstr("Permission denied")));
    }
    EXPECT_EQ(test::names_in(scratch.root()), before);
    fs::permissions(newest / name, test::readable_by_all);
  }
  EXPECT_EQ(choose()->shared, newest);
}

// It was set aside as damaged, whatever lay before it was gone on from, and later saves deleted it.
TEST(SaveTrouble, AStartRefusesToGoOnBesideACheckpointOfANewerFormat) {
  for (const std::int64_t newer : {10, 20}) {
    const test::Scratch scratch;
    for (const std::int64_t step : {10, 20}) ASSERT_TRUE(test::save(test::options_for(scratch.root(), 1), step).published);
    test::make_newer_format(test::step_path(scratch.root(), newer));
    fs::create_directories(scratch.root() / "step-00000030.attempt-0001.tmp");
    const auto before = test::names_in(scratch.root());
    const auto backend = make_cpu_backend();
    const auto world = make_solo(*backend);
    const auto rejected = [](const fs::path& path, const std::string& why) { ADD_FAILURE() << path << ": " << why; };
    for (const std::optional<std::int64_t> not_after : {std::optional<std::int64_t>(), std::optional<std::int64_t>(5)}) {
      try {
        choose_checkpoint({.checkpoints = scratch.root(), .not_after = not_after}, *world, rejected, [] {});
        ADD_FAILURE() << newer;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::configuration);
        const auto path = test::step_path(scratch.root(), newer).string();
        EXPECT_THAT(error.what(), AllOf(HasSubstr(path + " is of checkpoint format version 2"), HasSubstr("reads versions up to 1"),
                                        HasSubstr("another --run-dir")));
      }
      EXPECT_EQ(test::names_in(scratch.root()), before);
    }
  }
}

TEST(SaveTrouble, AStartPassesOverACheckpointWhoseRightsKeepItOut) {
  const test::Scratch scratch;
  for (const std::int64_t step : {10, 20}) ASSERT_TRUE(test::save(test::options_for(scratch.root(), 1), step).published);
  const auto newest = test::step_path(scratch.root(), 20);
  const auto backend = make_cpu_backend();
  const auto world = make_solo(*backend);
  std::vector<std::string> reasons;
  fs::permissions(scratch.root(), fs::perms::all);
  fs::permissions(newest, fs::perms::none);
  {
    const test::WithoutRights nobody;
    const auto chosen = choose_checkpoint({.checkpoints = scratch.root(), .not_after = std::nullopt}, *world,
                                          [&](const fs::path&, const std::string& why) { reasons.push_back(why); }, [] {});
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->shared, test::step_path(scratch.root(), 10));
  }
  EXPECT_THAT(reasons, ElementsAre(HasSubstr("Permission denied")));
}

}  // namespace
}  // namespace smlp
