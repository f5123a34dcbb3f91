#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>

#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"
#include "checkpoint/publish.h"
#include "core/error.h"
#include "core/files.h"
#include "core/run_directory.h"
#include "tests/checkpoint/newer_format.h"
#include "tests/checkpoint/sample.h"
#include "tests/without_rights.h"

namespace smlp::test {

namespace fs = std::filesystem;

const std::vector<SampleTensor> tiny = {{"a", {3}, DType::f32, Spread::replicated}};

std::vector<std::int64_t> steps_in(const fs::path& root) {
  std::vector<std::int64_t> steps;
  for (const auto& info : list_checkpoints(root, true)) steps.push_back(info.step);
  return steps;
}

void expect_published(const WriterOptions& options, std::int64_t step) {
  const auto saved = save(options, step, tiny);
  EXPECT_TRUE(saved.published) << saved.failure;
  EXPECT_EQ(saved.failure, "");
}

using Steps = std::vector<std::int64_t>;

TEST(Retention, KeepsTheLastFewAndEveryNth) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 2;
  options.keep_every = 40;
  for (std::int64_t step = 10; step <= 120; step += 10) expect_published(options, step);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{40, 80, 110, 120}));
  options.keep_every = 0;
  options.keep_last = 0;  // never none
  expect_published(options, 130);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{130}));
  EXPECT_EQ(names_in(scratch.root()), (std::vector<std::string>{"ATTEMPT", "LATEST", "step-00000130"}));
}

TEST(Retention, CountsOnlyWhatHolds) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 2;
  for (const std::int64_t step : {10, 20}) expect_published(options, step);
  fs::remove(step_path(scratch.root(), 20) / "rank-0000.h5");
  expect_published(options, 30);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 20, 30}));  // 10 and 30 are the two that hold
  expect_published(options, 40);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{30, 40}));
}

TEST(Retention, LeavesEverythingWhereNothingHolds) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  for (const std::int64_t step : {10, 20, 30}) expect_published(options, step);
  for (const std::int64_t step : {10, 20, 30}) fs::remove(step_path(scratch.root(), step) / "whole.h5");
  options.keep_last = 1;
  apply_retention(options);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 20, 30}));
}

// A disk that failed for a moment, while a save was published, had every older checkpoint deleted that it hid.
TEST(Retention, NothingGoesWhileOneCannotBeRead) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  for (const std::int64_t step : {10, 20, 30}) expect_published(options, step);
  options.keep_last = 1;
  const auto shut = step_path(scratch.root(), 20) / "manifest.json";
  fs::permissions(scratch.root(), fs::perms::all);
  fs::permissions(shut, fs::perms::none);
  try {
    const WithoutRights nobody;
    apply_retention(options);
    ADD_FAILURE() << "nothing was said";
  } catch (const Error& error) {
    const std::string words = error.what();
    EXPECT_NE(words.find("no older checkpoint is deleted while step-00000020 can't be read: "), std::string::npos) << words;
  }
  fs::permissions(shut, readable_by_all);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 20, 30}));
  apply_retention(options);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{30}));
}

// Somebody's decision, which no later look changes: the others would stay for ever.
TEST(Retention, OneWhoseRightsKeepTheRunOutStaysAndTheOthersGo) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  for (const std::int64_t step : {10, 20, 30}) expect_published(options, step);
  options.keep_last = 1;
  const auto shut = step_path(scratch.root(), 20);
  fs::permissions(scratch.root(), fs::perms::all);
  for (const std::int64_t step : {10, 30}) fs::permissions(step_path(scratch.root(), step), fs::perms::all);
  fs::permissions(shut, fs::perms::none);
  {
    const WithoutRights nobody;
    EXPECT_NO_THROW(apply_retention(options));
  }
  fs::permissions(shut, readable_by_all);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{20, 30}));
}

// "Stays for good", says its key; it went with the first save after a bit of it had rotted.
TEST(Retention, ADamagedOneOfEveryNthStays) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  options.keep_every = 20;
  for (const std::int64_t step : {10, 20, 30}) expect_published(options, step);
  fs::remove(step_path(scratch.root(), 20) / "rank-0000.h5");
  expect_published(options, 50);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{20, 50}));
}

void publish_state(const WriterOptions& options, const RunState& state) {
  SampleRank memory(0, 1, tiny);
  memory.fill(state.integer("step"));
  CheckpointWriter writer(options);
  writer.begin(memory.backend(), memory.pieces(), state);
  writer.wait();
  writer.publish();
  writer.wait();
  EXPECT_EQ(writer.state(), CheckpointWriter::State::published) << writer.failure();
  EXPECT_EQ(writer.note(), "");
}

// A save of a step at which an evaluation found `loss`.
void publish_with_loss(const WriterOptions& options, std::int64_t step, double loss) {
  auto state = sample_state(step);
  state.numbers[RunState::validation_loss] = {loss};
  publish_state(options, state);
}

TEST(Retention, KeepsTheBestWhateverItsAge) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  options.keep_best = true;
  publish_with_loss(options, 5, std::numeric_limits<double>::quiet_NaN());
  publish_with_loss(options, 10, 5.0);
  publish_with_loss(options, 20, 3.0);
  expect_published(options, 25);  // no evaluation at that step
  EXPECT_EQ(steps_in(scratch.root()), (Steps{20, 25}));
  publish_with_loss(options, 30, 3.0);  // as good, but later
  publish_with_loss(options, 40, std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(steps_in(scratch.root()), (Steps{20, 40}));
  options.attempt = 2;
  publish_with_loss(options, 50, 4.0);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{20, 50}));
  EXPECT_EQ(list_checkpoints(scratch.root(), true).front().validation_loss, 3.0);
  publish_with_loss(options, 60, 2.0);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{60}));
  publish_with_loss(options, 70, 2.5);
  options.keep_best = false;
  expect_published(options, 80);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{80}));
}

// A --set that was forgotten once deleted months of milestones.
TEST(Retention, WhatWasSavedToStayStaysWhateverALaterStartSets) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  const auto publish = [&](std::int64_t step, double loss, std::int64_t keep_every, bool keep_best) {
    options.keep_last = 1;
    options.keep_every = keep_every;
    options.keep_best = keep_best;
    auto state = sample_state(step);
    state.numbers[RunState::validation_loss] = {loss};
    state.texts["job"] = fmt::format("name = \"its\"\n[data]\ntrain = [\"train\"]\nvalid = [\"valid\"]\n"
                                     "[checkpoint]\nkeep_every = {}\nkeep_best = {}\n", keep_every, keep_best);
    publish_state(options, state);
  };
  publish(5, 1.0, 10, true);
  publish(10, 5.0, 10, true);
  publish(15, 4.0, 10, true);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{5, 10, 15}));
  publish(18, 3.0, 0, false);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{5, 10, 18})) << "neither the best nor the tenth";
  publish(20, 0.5, 0, false);
  publish(30, 0.5, 15, false);
  publish(31, 0.5, 4, true);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 30, 31})) << "20 was not to stay; 30 is the best now";
}

TEST(Retention, WhatAnotherVersionsJobMayHavePromisedStays) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  for (const std::int64_t step : {10, 20, 30}) {
    auto state = sample_state(step);
    state.texts["job"] = step == 10 ? "optimizer.lion = true\n" : "name = \"its\"\n[data]\ntrain = [\"train\"]\n";
    publish_state(options, state);
  }
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 30}));
}

namespace {
fs::path looked_at;
int removals = 0, halves_seen = 0;
void look_for_halves(const char* operation) {
  if (!std::string_view(operation).starts_with("remove")) return;
  ++removals;
  for (const auto& one : list_checkpoints(looked_at, false)) halves_seen += one.valid ? 0 : 1;
}
}  // namespace

TEST(Retention, AnOldOneGoesAllAtOnce) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  expect_published(options, 10);
  looked_at = scratch.root();
  fault_point = &look_for_halves;
  expect_published(options, 20);
  fault_point = nullptr;
  EXPECT_GE(removals, 4);  // a shard, whole.h5, the manifest, the folder
  EXPECT_EQ(halves_seen, 0);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{20}));
}

TEST(Retention, TheBestIsOneThatHolds) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  options.keep_best = true;
  publish_with_loss(options, 10, 1.0);
  publish_with_loss(options, 20, 3.0);
  publish_with_loss(options, 30, 2.0);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 30}));
  fs::remove(step_path(scratch.root(), 10) / "rank-0000.h5");
  publish_with_loss(options, 40, 4.0);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{30, 40}));
}

TEST(Retention, WhatWasSetAsideGoesOnceTheRunHasPassedIt) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  expect_published(options, 10);
  expect_published(options, 20);
  set_aside(step_path(scratch.root(), 20));
  EXPECT_EQ(names_in(scratch.root()),
            (std::vector<std::string>{"ATTEMPT", "LATEST", "step-00000020.aside-1"}));
  EXPECT_TRUE(list_checkpoints(scratch.root(), false).empty());
  expect_published(options, 20);
  EXPECT_TRUE(fs::exists(scratch.root() / "step-00000020.aside-1"));
  set_aside(step_path(scratch.root(), 20));
  EXPECT_TRUE(fs::exists(scratch.root() / "step-00000020.aside-2"));
  expect_published(options, 30);
  EXPECT_EQ(names_in(scratch.root()), (std::vector<std::string>{"ATTEMPT", "LATEST", "step-00000030"}));
}

TEST(Retention, TroubleWithOldOnesDoesNotFailTheSave) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  expect_published(options, 10);
  // In the way of the name under which step 10 would go.
  fs::create_directories(scratch.root() / "step-00000010.attempt-0001.tmp" / "in the way");
  const auto saved = save(options, 20, tiny);
  EXPECT_TRUE(saved.published);
  EXPECT_NE(saved.failure.find("is published, but: renaming"), std::string::npos) << saved.failure;
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 20}));
  sweep_checkpoints(scratch.root());
  expect_published(options, 30);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{30}));
}

TEST(Sweep, RemovesOnlyWhatIsTemporary) {
  const Scratch scratch;
  expect_published(options_for(scratch.root(), 1), 10);
  const auto before = names_in(scratch.root());
  fs::create_directories(scratch.root() / "step-00000020.attempt-0001.tmp" / "folder");
  write_atomically(scratch.root() / "step-00000020.attempt-0001.tmp" / "rank-0000.h5", "x");
  write_atomically(scratch.root() / "LATEST.attempt-0001.tmp", "x");
  write_atomically(scratch.root() / "notes.tmp", "mine");
  sweep_checkpoints(scratch.root());
  auto after = names_in(scratch.root());
  EXPECT_TRUE(fs::exists(scratch.root() / "notes.tmp"));
  std::erase(after, "notes.tmp");
  EXPECT_EQ(after, before);
}

// A link to a folder was taken for the folder, and what it leads to went.
TEST(Sweep, WhatLiesBehindALinkStays) {
  const Scratch scratch;
  const auto root = scratch.root() / "checkpoints", elsewhere = scratch.root() / "elsewhere";
  fs::create_directories(elsewhere / "folder");
  write_atomically(elsewhere / "folder" / "file", "mine");
  fs::create_directories(root / "step-00000010.attempt-0001.tmp");
  fs::create_directory_symlink(elsewhere, root / "step-00000010.attempt-0001.tmp" / "link");
  fs::create_symlink("nowhere", root / "step-00000010.attempt-0001.tmp" / "dangling");
  fs::create_directory_symlink(elsewhere, root / "step-00000020.attempt-0001.tmp");
  fs::create_directory_symlink(elsewhere, root / "link");
  sweep_checkpoints(root);
  EXPECT_EQ(names_in(root), (std::vector<std::string>{"link"}));
  remove_folder(root / "link");
  EXPECT_TRUE(fs::is_empty(root));
  EXPECT_EQ(read_text(elsewhere / "folder" / "file"), "mine");
}

TEST(Sweep, GoesOnBehindWhatCannotBeRemoved) {
  const Scratch scratch;
  for (const char* name : {"step-00000010.attempt-0001.tmp", "step-00000020.attempt-0001.tmp"}) {
    fs::create_directories(scratch.root() / name);
  }
  static bool refused = false;
  refused = false;
  fault_point = [](const char* operation) {
    if (std::string_view(operation) != "remove folder" || refused) return;
    refused = true;
    throw Error(ExitCode::io_failed, "planted");
  };
  std::vector<std::string> failures;
  EXPECT_NO_THROW(failures = sweep_checkpoints(scratch.root()));
  fault_point = nullptr;
  EXPECT_EQ(failures, (std::vector<std::string>{"planted"}));
  EXPECT_EQ(names_in(scratch.root()), (std::vector<std::string>{"step-00000010.attempt-0001.tmp"}));
}

// Another step's values under the same number, as after a restart that went another way.
SaveResult save_other(const WriterOptions& options, std::int64_t step, double extra) {
  SampleRank memory(0, 1, tiny);
  memory.fill(step + 1000);
  CheckpointWriter writer(options);
  auto state = sample_state(step);
  state.numbers["extra"] = {extra};
  writer.begin(memory.backend(), memory.pieces(), state);
  writer.wait();
  writer.publish();
  writer.wait();
  return {writer.state() == CheckpointWriter::State::published, writer.failure()};
}

// To an older program they were damaged ones: what a newer one had saved was deleted in the course of training.
TEST(Retention, LeavesWhatIsOfANewerFormatAlone) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  for (const std::int64_t step : {10, 11}) {
    expect_published(options, step);
    make_newer_format(step_path(scratch.root(), step));
  }
  set_aside(step_path(scratch.root(), 11));
  for (const std::int64_t step : {20, 30, 40}) expect_published(options, step);
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 40}));
  EXPECT_EQ(inspect_checkpoint(scratch.root() / "step-00000011.aside-1").newer_format, 2);
}

TEST(SameStep, IdenticalIsLeftAlone) {
  const Scratch scratch;
  expect_published(options_for(scratch.root(), 1, 1), 10);
  expect_published(options_for(scratch.root(), 1, 2), 10);
  EXPECT_EQ(names_in(scratch.root()), (std::vector<std::string>{"ATTEMPT", "LATEST", "step-00000010"}));
  EXPECT_EQ(verify_checkpoint(step_path(scratch.root(), 10)).attempt, 1);
}

TEST(SameStep, IdenticalButDamagedIsReplaced) {
  const Scratch scratch;
  expect_published(options_for(scratch.root(), 1, 1), 10);
  flip_bit(step_path(scratch.root(), 10) / "rank-0000.h5", 8 * 200);
  expect_published(options_for(scratch.root(), 1, 2), 10);
  const auto info = verify_checkpoint(step_path(scratch.root(), 10));
  EXPECT_TRUE(info.valid) << info.reason;
  EXPECT_EQ(info.attempt, 2);
  EXPECT_FALSE(verify_checkpoint(scratch.root() / "step-00000010.aside-1").valid);
}

TEST(SameStep, AnotherIsReplacedAndKeptAside) {
  const Scratch scratch;
  expect_published(options_for(scratch.root(), 1, 1), 10);
  const auto first = digest_tensors(step_path(scratch.root(), 10));
  ASSERT_TRUE(save_other(options_for(scratch.root(), 1, 2), 10, 1).published);
  EXPECT_NE(digest_tensors(step_path(scratch.root(), 10)), first);
  EXPECT_EQ(digest_tensors(scratch.root() / "step-00000010.aside-1"), first);
  // The run state alone makes it another.
  ASSERT_TRUE(save_other(options_for(scratch.root(), 1, 3), 10, 2).published);
  EXPECT_EQ(read_run_state(step_path(scratch.root(), 10)).numbers.at("extra")[0], 2);
  EXPECT_TRUE(fs::exists(scratch.root() / "step-00000010.aside-2"));
}

TEST(Fence, AStaleAttemptPublishesNothing) {
  const Scratch scratch;
  SampleRank memory(0, 1, tiny);
  CheckpointWriter stale(options_for(scratch.root(), 1, 2));
  stale.begin(memory.backend(), memory.pieces(), sample_state(30));
  stale.wait();
  CheckpointWriter current(options_for(scratch.root(), 1, 3));  // takes over
  stale.publish();
  stale.wait();
  EXPECT_EQ(stale.state(), CheckpointWriter::State::failed);
  EXPECT_NE(stale.failure().find("attempt 3 of this run has taken over"), std::string::npos)
      << stale.failure();
  stale.release();
  EXPECT_TRUE(list_checkpoints(scratch.root(), false).empty());
  current.begin(memory.backend(), memory.pieces(), sample_state(30));
  current.wait();
  current.publish();
  current.wait();
  EXPECT_EQ(current.state(), CheckpointWriter::State::published) << current.failure();
}

namespace {

// Another attempt takes over at the n-th operation of its kind.
fs::path fenced;
std::string_view awaited;
int awaited_left = 0;
void take_over_when_due(const char* operation) {
  if (operation == awaited && awaited_left-- == 0) write_atomically(fenced / fence_name, "3\n");
}

SaveResult save_overtaken(const WriterOptions& options, std::int64_t step, std::string_view operation, int number) {
  SampleRank memory(0, 1, tiny);
  CheckpointWriter writer(options);
  writer.begin(memory.backend(), memory.pieces(), sample_state(step));
  writer.wait();
  fenced = options.root;
  awaited = operation;
  awaited_left = number;
  fault_point = &take_over_when_due;
  writer.publish();
  writer.wait();
  fault_point = nullptr;
  const bool published = writer.state() == CheckpointWriter::State::published;
  return {published, published ? writer.note() : writer.failure()};
}

}  // namespace

// It was looked at before whole.h5 was made and written, which takes minutes for a large model.
TEST(Fence, AnAttemptThatIsOvertakenWhileItPublishesPublishesNothing) {
  const Scratch scratch;
  const auto saved = save_overtaken(options_for(scratch.root(), 1, 2), 30, "create file", 0);  // whole.h5
  EXPECT_FALSE(saved.published);
  EXPECT_NE(saved.failure.find("attempt 3 of this run has taken over"), std::string::npos) << saved.failure;
  EXPECT_EQ(names_in(scratch.root()), (std::vector<std::string>{"ATTEMPT"}));
}

TEST(Fence, AnAttemptThatIsOvertakenAsItPublishesDeletesNothing) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1, 2);
  options.keep_last = 1;
  expect_published(options, 10);
  const auto saved = save_overtaken(options, 20, "rename", 1);  // of LATEST
  EXPECT_TRUE(saved.published);
  EXPECT_NE(saved.failure.find("attempt 3 of this run has taken over"), std::string::npos) << saved.failure;
  EXPECT_EQ(steps_in(scratch.root()), (Steps{10, 20}));
}

// A disk that failed to show it was one without a fence: an attempt that was over published again.
TEST(Fence, OneThatCannotBeReadIsNotOneThatNobodyRaised) {
  const Scratch scratch;
  fs::create_symlink(fence_name, scratch.root() / fence_name);
  const auto saved = save(options_for(scratch.root(), 1, 2), 30, tiny);
  EXPECT_FALSE(saved.published);
  EXPECT_NE(saved.failure.find("ATTEMPT failed: Too many levels of symbolic links"), std::string::npos) << saved.failure;
  EXPECT_TRUE(list_checkpoints(scratch.root(), false).empty());
}

TEST(Fence, ShardsOfTwoAttemptsNeverMix) {
  const Scratch scratch;
  auto stale_options = options_for(scratch.root(), 2, 1), options = options_for(scratch.root(), 2, 2);
  stale_options.rank = 1;
  SampleRank memory0(0, 2), memory1(1, 2);
  CheckpointWriter stale(stale_options);  // rank 1 of the attempt before, cut off and still alive
  stale.begin(memory1.backend(), memory1.pieces(), sample_state(30));
  stale.wait();
  CheckpointWriter root(options);
  root.begin(memory0.backend(), memory0.pieces(), sample_state(30));
  root.wait();
  root.publish();
  root.wait();
  EXPECT_EQ(root.state(), CheckpointWriter::State::failed);
  EXPECT_NE(root.failure().find("rank-0001.json did not show up"), std::string::npos) << root.failure();
}

}  // namespace smlp::test
