// Under mpirun: local saves with their copies at partners, lost and damaged ones, and loading by whoever needs what. Each
// rank has a local_dir of its own, like a node's disk that no other node sees.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "checkpoint/names.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"
#include "tests/checkpoint/sample.h"
#include "tests/comm/faraway_backend.h"
#include "tests/comm/ranks.h"
#include "tests/without_rights.h"
#include "worker/restore.h"
#include "worker/saves.h"
#include "worker/side_by_side.h"
#include "worker/texts.h"

namespace smlp::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

int rank() { return world().rank(); }
int ranks() { return world().size(); }
bool alone() { return ranks() == 1; }

// One folder for all ranks; `nodes/N` is what node N has.
class Tiers : public testing::Test {
 protected:
  Tiers() : root_(broadcast_text(world(), rank() == 0 ? scratch_.root().string() : "")) { run_.root = root_ / "run"; }
  void SetUp() override { fs::create_directories(run_.checkpoints()); }
  void TearDown() override { world().barrier(); }

  fs::path node(int number) const { return root_ / "nodes" / fmt::format("{}", (number + ranks()) % ranks()); }
  // While its rank may still be removing what it no longer keeps.
  static void lose(const fs::path& node) {
    for (std::error_code changing; fs::exists(node);) fs::remove_all(node, changing);
  }

  // An attempt with my place on node `number`; what it found is in found_.
  struct Attempt {
    std::unique_ptr<LocalStart> start;
    std::optional<RestorePoint> from;
  };
  Attempt begin(int number, std::optional<std::int64_t> not_after = {}) {
    Attempt attempt;
    const auto say = [this](const std::string& what, const std::string& why) { said_ += what + ": " + why + "\n"; };
    attempt.start = std::make_unique<LocalStart>(node(number).string(), run_, not_after, world(), say);
    attempt.from = choose_checkpoint({run_.checkpoints(), not_after, attempt.start.get()}, world(),
                                     [&](const fs::path& path, const std::string& why) { say(path.string(), why); }, [] {});
    return attempt;
  }

  std::unique_ptr<Saves> saves(LocalStart& start, int attempt, std::int64_t step) {
    EXPECT_TRUE(start.begin(attempt, step));
    auto shared = options_for(run_.checkpoints(), ranks(), attempt);
    shared.rank = rank();
    auto local = shared;
    local.root = start.folder();
    local.local = true;
    const auto told = [this](const SaveOutcome& outcome) { outcomes_.push_back(outcome); };
    auto both = std::make_unique<Saves>(shared, told);
    both->add_local(std::make_unique<LocalTier>(local, world().split(0, rank()), start.partners(), std::nullopt, told));
    return both;
  }

  using Change = std::function<void(std::vector<Piece>&)>;
  void save(Saves& saves, std::int64_t step, Saves::Wish wish, const Change& change = {}) {
    SampleRank memory(rank(), ranks());
    memory.fill(step);
    if (change) change(memory.pieces());
    saves.begin(wish, memory.backend(), memory.pieces(), sample_state(step));
    downloads_ = dynamic_cast<FarawayBackend&>(memory.backend()).downloads;
    pieces_ = static_cast<int>(std::ranges::count_if(memory.pieces(), [](const Piece& piece) {
      return piece.mine && piece.local.size() > 0;
    }));
    memory.wipe();  // training goes on
    saves.drain(world());
  }

  // Local saves of steps 10, 20 and 30 by attempt 1.
  void three_saves() {
    auto attempt = begin(rank());
    EXPECT_FALSE(attempt.from);
    const auto all = saves(*attempt.start, 1, 0);
    for (const std::int64_t step : {10, 20, 30}) save(*all, step, {.local = true});
    for (const auto& outcome : outcomes_) EXPECT_EQ(outcome.failure, "");
    world().barrier();
  }

  // Every byte of my pieces is that of `step`, and the run state too.
  void expect_loads(Attempt& attempt, std::int64_t step, std::int64_t block_bytes = 1 << 20) {
    ASSERT_TRUE(attempt.from && attempt.from->local) << said_;
    EXPECT_EQ(attempt.from->local->save.step, step) << said_;
    SampleRank memory(rank(), ranks());
    memory.wipe();
    attempt.start->load(*attempt.from->local, memory.backend(), memory.pieces(), [] {}, block_bytes);
    EXPECT_THAT(memory.wrong(step), testing::IsEmpty());
    EXPECT_EQ(attempt.from->local->manifest.state.integer("step"), step);
  }

  fs::path files_of(int number) const {
    for (const auto& run : fs::directory_iterator(node(number))) {
      for (const auto& host : fs::directory_iterator(run.path())) {
        if (host.is_directory()) return host.path();
      }
    }
    return {};
  }
  static void damage(const fs::path& file) { flip_bit(file, static_cast<std::int64_t>(fs::file_size(file)) * 4); }

  Scratch scratch_;
  fs::path root_;
  RunDirectory run_;
  std::string said_;  // rank 0
  std::vector<SaveOutcome> outcomes_;
  int downloads_ = 0, pieces_ = 0;
};

TEST_F(Tiers, KeepTheLastTwoSavesWithACopyAtThePartner) {
  three_saves();
  for (const std::int64_t step : {20, 30}) {
    const auto mine = local_files(files_of(rank()), {step, 1}, rank(), false);
    EXPECT_TRUE(fs::exists(mine.shard) && fs::exists(mine.sidecar)) << mine.shard;
    if (alone()) continue;
    const auto copy = local_files(files_of(rank() + 1), {step, 1}, rank(), true);
    EXPECT_EQ(read_text(mine.shard), read_text(copy.shard));
    EXPECT_EQ(read_text(mine.sidecar), read_text(copy.sidecar));
  }
  EXPECT_EQ(names_in(files_of(rank())).size(), 2U) << "step 10 went";
}

std::atomic<bool> silent = false;

TEST_F(Tiers, ADiskThatDoesNotAnswerIsKnownInEither) {
  auto attempt = begin(rank());
  const auto all = saves(*attempt.start, 1, 0);
  SampleRank memory(rank(), ranks());
  for (const auto tier : {Tier::local, Tier::shared}) {
    EXPECT_FALSE(all->own_writing());
    const std::int64_t step = tier == Tier::local ? 10 : 20;
    memory.fill(step);
    silent = true;
    fault_point = [](const char*) {
      while (silent) sleep_seconds(0.005);
    };
    all->begin({.shared = tier == Tier::shared, .local = tier == Tier::local}, memory.backend(), memory.pieces(),
               sample_state(step));
    std::optional<OwnWriting> longest;
    for (const double end = monotonic_seconds() + 20; monotonic_seconds() < end && (!longest || longest->seconds < 0.3);) {
      longest = all->own_writing();
    }
    silent = false;
    EXPECT_TRUE(longest && longest->tier == tier && longest->step == step && longest->seconds >= 0.3);
    all->drain(world());
    fault_point = nullptr;
  }
  EXPECT_EQ(outcomes_.size(), 2u);
  for (const auto& outcome : outcomes_) EXPECT_TRUE(outcome.published) << outcome.failure;
}

// The loop waited for the sweep of the save before, on a disk that did not answer.
TEST_F(Tiers, ASweepThatTheDiskHoldsUpHoldsUpNoSave) {
  auto attempt = begin(rank());
  const auto all = saves(*attempt.start, 1, 0);
  for (const std::int64_t step : {10, 20}) save(*all, step, {.local = true});
  silent = true;
  fault_point = [](const char* operation) {
    while (silent && operation == std::string_view("remove folder")) sleep_seconds(0.005);
  };
  std::jthread let_go([](const std::stop_token& stop) {
    for (const double end = monotonic_seconds() + 30; monotonic_seconds() < end && !stop.stop_requested();) sleep_seconds(0.01);
    silent = false;
  });
  for (const std::int64_t step : {30, 40, 50}) save(*all, step, {.local = true});
  EXPECT_TRUE(silent) << "the saves waited for the sweep";
  let_go = {};
  for (const auto& outcome : outcomes_) EXPECT_TRUE(outcome.published) << outcome.failure;
  fault_point = nullptr;
}

// A rank that had verified or loaded its share waited in one collective for those that read longer, and was ended as hung.
TEST(SideBySide, WhoIsDoneEarlyWaitsInManySmallCollectives) {
  SideBySide all(world());
  const auto before = world().calls();
  if (rank() == ranks() - 1) {
    for (const double end = monotonic_seconds() + 3.5; monotonic_seconds() < end; sleep_seconds(0.01)) all.between();
  }
  all.finish();
  EXPECT_GE(world().calls() - before, 4);
  EXPECT_LE(world().calls() - before, 8);
}

std::atomic<int> files_until_full = 0;

// Rank 0, which writes the events, knew only that another rank's part had failed.
TEST_F(Tiers, AFailedSaveSaysWhyOnEveryRank) {
  auto attempt = begin(rank());
  const auto all = saves(*attempt.start, 1, 0);
  const int last = ranks() - 1;
  const auto fails = [&](std::int64_t step, Saves::Wish wish, int after_files, const std::string& where) {
    files_until_full = after_files;
    if (rank() == last) {
      fault_point = [](const char* operation) {
        if (std::string_view(operation) != "create file" || files_until_full-- > 0) return;
        throw Error(ExitCode::io_failed, "planted: the disk is full");
      };
    }
    outcomes_.clear();
    save(*all, step, wish);
    fault_point = nullptr;
    ASSERT_EQ(outcomes_.size(), 1u);
    EXPECT_FALSE(outcomes_[0].published);
    EXPECT_EQ(outcomes_[0].failure, where + ": planted: the disk is full");
    world().barrier();
  };
  fails(10, {.shared = true}, 0, fmt::format("the checkpoint of step 10 failed on rank {}", last));
  fails(20, {.local = true}, 0, fmt::format("the checkpoint of step 20 failed on rank {}", last));
  if (alone()) return;
  constexpr int shard_and_sidecar = 2;
  fails(30, {.local = true}, shard_and_sidecar, fmt::format("the partner's copy in step 30, on rank {}", last));
}

TEST_F(Tiers, GoOnFromTheNewestLocalSave) {
  three_saves();
  auto attempt = begin(rank());
  expect_loads(attempt, 30);
  EXPECT_EQ(said_, "");
}

TEST_F(Tiers, ASaveIsAsOldAsItsFiles) {
  three_saves();
  const auto hour_ago = fs::file_time_type::clock::now() - std::chrono::hours(1);
  const auto folder = local_files(files_of(rank()), {30, 1}, rank(), false).shard.parent_path();
  for (const auto& file : fs::directory_iterator(folder)) fs::last_write_time(file.path(), hour_ago);
  const auto attempt = begin(rank());
  const auto saved_at = attempt.start->saved_at({30, 1});
  ASSERT_TRUE(saved_at);
  EXPECT_NEAR(unix_seconds() - *saved_at, 3600, 60);
  EXPECT_FALSE(attempt.start->saved_at({40, 1}));
}

// No test had a piece of more than one block.
TEST_F(Tiers, PiecesOfManyBlocksComeWhole) {
  three_saves();
  for (const std::int64_t bytes : {8, 24}) {
    auto attempt = begin(rank() + 1);
    expect_loads(attempt, 30, bytes);
  }
}

TEST_F(Tiers, ASaveOfWhichNoRankWroteATensorIsNotUsed) {
  {
    auto attempt = begin(rank());
    const auto all = saves(*attempt.start, 1, 0);
    save(*all, 10, {.local = true});
    save(*all, 20, {.local = true}, [](std::vector<Piece>& pieces) { pieces.front().mine = false; });
  }
  world().barrier();
  auto attempt = begin(rank());
  expect_loads(attempt, 10);
  if (rank() == 0) {
    EXPECT_THAT(said_, HasSubstr("local step-00000020.attempt-0001: no shard holds element 0 of tensor "));
  }
}

// What was sound when it was verified may not be when it is read.
TEST_F(Tiers, AShardThatRotsBetweenItsVerificationAndItsLoadIsRefused) {
  if (!alone()) GTEST_SKIP() << "one rank: peers of one that throws wait for ever";
  three_saves();
  auto attempt = begin(rank());
  ASSERT_TRUE(attempt.from && attempt.from->local);
  const auto shard = local_files(files_of(0), {30, 1}, 0, false).shard;
  const auto bits = static_cast<std::int64_t>(fs::file_size(shard)) * 8;
  for (int part = 1; part < 32; ++part) flip_bit(shard, bits * part / 32);
  SampleRank memory(0, 1);
  try {
    attempt.start->load(*attempt.from->local, memory.backend(), memory.pieces(), [] {});
    ADD_FAILURE() << "not noticed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("of the local save of step 30 does not match its digest any more"));
  }
}

TEST_F(Tiers, RanksMaySitOnOtherNodesAfterwards) {
  three_saves();
  auto attempt = begin(rank() + 1);
  expect_loads(attempt, 30);
}

TEST_F(Tiers, ANodeThatIsLostIsReplacedByThePartnersCopies) {
  if (alone()) GTEST_SKIP() << "two ranks";
  three_saves();
  if (rank() == 0) lose(node(1));
  world().barrier();
  auto attempt = begin(rank());
  expect_loads(attempt, 30);
}

TEST_F(Tiers, TwoNeighboursLostLeaveNothingAndTheSharedDirectoryIsUsed) {
  if (ranks() < 3) GTEST_SKIP() << "three ranks";
  three_saves();
  if (rank() == 0) lose(node(0));
  if (rank() == 0) lose(node(1));
  world().barrier();
  auto attempt = begin(rank());
  EXPECT_FALSE(attempt.from);
  if (rank() == 0) {
    EXPECT_THAT(said_, HasSubstr("the shard of rank 0 is on no node of this attempt"));
  }
}

TEST_F(Tiers, AFlippedBitMeansThePartnersCopyThenTheSaveBefore) {
  three_saves();
  if (rank() == 0) damage(local_files(files_of(0), {30, 1}, 0, false).shard);
  world().barrier();
  {
    auto attempt = begin(rank());
    expect_loads(attempt, alone() ? 20 : 30);
    if (rank() == 0) {
      EXPECT_THAT(said_, HasSubstr("the shard of rank 0 on "));
    }
    if (rank() == 0) {
      EXPECT_THAT(said_, HasSubstr("do not match their digest"));
    }
  }
  if (alone()) return;
  if (rank() == 0) damage(local_files(files_of(1), {30, 1}, 0, true).shard);
  world().barrier();
  auto attempt = begin(rank());
  expect_loads(attempt, 20);
  if (rank() == 0) {
    EXPECT_THAT(said_, HasSubstr("the partner's copy of rank 0 on "));
  }
}

// There a shard and its copy lie beside each other, and it is the copy that must be looked at.
TEST_F(Tiers, OnOneNodeADamagedShardIsReadFromItsCopy) {
  if (alone()) GTEST_SKIP() << "two ranks";
  {
    auto attempt = begin(0);
    const auto all = saves(*attempt.start, 1, 0);
    for (const std::int64_t step : {10, 20}) save(*all, step, {.local = true});
  }
  world().barrier();
  if (rank() == 0) damage(local_files(files_of(0), {20, 1}, 0, false).shard);
  world().barrier();
  auto attempt = begin(0);
  expect_loads(attempt, 20);
  if (rank() == 0) {
    EXPECT_THAT(said_, HasSubstr("the shard of rank 0 on "));
  }
}

TEST_F(Tiers, ATornSidecarOrAShardCutShortDoesNotCount) {
  three_saves();
  const auto last = local_files(files_of(rank()), {30, 1}, rank(), false);
  fs::resize_file(last.sidecar, fs::file_size(last.sidecar) / 2);
  if (!alone()) {
    const auto copy = local_files(files_of(rank()), {30, 1}, (rank() + ranks() - 1) % ranks(), true);
    fs::resize_file(copy.shard, fs::file_size(copy.shard) - 1);
  }
  world().barrier();
  auto attempt = begin(rank());
  expect_loads(attempt, 20);
  if (rank() == 0) {
    EXPECT_THAT(said_, HasSubstr("does not hold: its digest is not the one in its first line"));
  }
}

TEST_F(Tiers, TheNewerOfBothTiersIsUsed) {
  {
    auto attempt = begin(rank());
    const auto all = saves(*attempt.start, 1, 0);
    save(*all, 10, {.shared = true});
    save(*all, 20, {.local = true});
    save(*all, 30, {.shared = true});
  }
  auto attempt = begin(rank());
  ASSERT_TRUE(attempt.from);
  EXPECT_EQ(attempt.from->shared.filename(), "step-00000030");
  EXPECT_EQ(attempt.from->shared_beside, "");
  world().barrier();
  if (rank() == 0) fs::remove_all(attempt.from->shared);
  world().barrier();
  auto again = begin(rank());
  expect_loads(again, 20);
  EXPECT_EQ(again.from->shared_beside.filename(), "step-00000010");
}

// One node with a stale mount had all ranks set aside one sound checkpoint after the other.
TEST_F(Tiers, WhatOneRankCannotReadIsLeftToTheNextStartByAll) {
  if (alone()) GTEST_SKIP() << "two ranks";
  {
    auto attempt = begin(rank());
    const auto all = saves(*attempt.start, 1, 0);
    save(*all, 10, {.shared = true});
  }
  const auto shard = run_.checkpoints() / checkpoint_name(10) / shard_name(1);
  if (rank() == 0) {
    fs::permissions(root_, fs::perms::all);
    fs::permissions(shard, fs::perms::none);
  }
  const auto hosts = all_texts(world(), host_name());
  world().barrier();
  const auto choose = [&] {
    std::optional<WithoutRights> nobody;
    if (rank() == 1) nobody.emplace();
    const auto rejected = [](const fs::path& path, const std::string& why) { ADD_FAILURE() << path << ": " << why; };
    return choose_checkpoint({run_.checkpoints(), std::nullopt}, world(), rejected, [] {});
  };
  try {
    choose();
    ADD_FAILURE() << "nothing was said";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io_failed);
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("can't be told: rank 1 on {} could not read it: opening {}", hosts[1],
                                                    shard.string())));
  }
  world().barrier();
  if (rank() == 0) fs::permissions(shard, readable_by_all);
  world().barrier();
  EXPECT_EQ(choose()->shared.filename(), checkpoint_name(10));
}

TEST_F(Tiers, AStepOfBothIsReadFromTheSharedDirectory) {
  {
    auto attempt = begin(rank());
    const auto all = saves(*attempt.start, 1, 0);
    save(*all, 10, {.shared = true, .local = true});
  }
  auto attempt = begin(rank());
  ASSERT_TRUE(attempt.from);
  EXPECT_EQ(attempt.from->shared.filename(), "step-00000010");
}

TEST_F(Tiers, AStepForBothIsCopiedOnce) {
  auto attempt = begin(rank());
  const auto all = saves(*attempt.start, 1, 0);
  save(*all, 10, {.shared = true, .local = true});
  EXPECT_EQ(downloads_, pieces_);
  ASSERT_EQ(outcomes_.size(), 2U);
  for (const auto& outcome : outcomes_) EXPECT_TRUE(outcome.published) << outcome.failure;
  EXPECT_EQ(load_fault(run_.checkpoints() / checkpoint_name(10), ranks(), 10), "");
  save(*all, 20, {.shared = true, .local = true});  // with the memory that went round
  EXPECT_EQ(load_fault(run_.checkpoints() / checkpoint_name(20), ranks(), 20), "");
  world().barrier();
  if (rank() == 0) fs::remove_all(run_.checkpoints());
  world().barrier();
  auto again = begin(rank());
  expect_loads(again, 20);
}

std::atomic<int> faults_left = 0;
void no_room(const char* operation) {
  if (std::string_view(operation) == "reserve space" && faults_left.exchange(0) > 0) {
    throw Error(ExitCode::io_failed, "no space left");
  }
}

TEST_F(Tiers, AFullLocalDiskFailsOnAllRanksAndTheSharedSaveGoesOn) {
  auto attempt = begin(rank());
  const auto all = saves(*attempt.start, 1, 0);
  save(*all, 10, {.local = true});
  outcomes_.clear();
  if (rank() == 0) faults_left = 1;  // its first reservation is that of its own local shard
  fault_point = no_room;
  save(*all, 20, {.shared = true, .local = true});
  fault_point = nullptr;
  EXPECT_EQ(faults_left, 0);
  EXPECT_EQ(downloads_, pieces_);
  ASSERT_EQ(outcomes_.size(), 2U);
  EXPECT_EQ(outcomes_[0].tier, Tier::local);
  EXPECT_FALSE(outcomes_[0].published);
  if (rank() == 0) {
    EXPECT_THAT(outcomes_[0].failure, HasSubstr("no space left"));
  }
  EXPECT_TRUE(outcomes_[1].published) << outcomes_[1].failure;
  EXPECT_EQ(load_fault(run_.checkpoints() / checkpoint_name(20), ranks(), 20), "");
  EXPECT_EQ(names_in(files_of(rank())), std::vector<std::string>{"step-00000010.attempt-0001"});
  save(*all, 30, {.local = true});
  EXPECT_TRUE(outcomes_.back().published);
}

TEST_F(Tiers, APartnerThatCannotHoldTheCopyFailsTheSaveOnAllRanks) {
  if (alone()) GTEST_SKIP() << "two ranks";
  auto attempt = begin(rank());
  const auto all = saves(*attempt.start, 1, 0);
  save(*all, 10, {.local = true});
  // A folder where the copy should go.
  const auto copy = local_files(files_of(rank()), {20, 1}, (rank() + ranks() - 1) % ranks(), true);
  if (rank() == 0) fs::create_directories(copy.shard / "in the way");
  world().barrier();
  save(*all, 20, {.local = true});
  EXPECT_FALSE(outcomes_.back().published);
  if (rank() == 0) {
    EXPECT_THAT(outcomes_.back().failure, HasSubstr("the partner's copy in step 20"));
  }
  if (rank() != 0) {  // where a thread removes what is worth nothing
    const std::vector<std::string> left = {"step-00000010.attempt-0001"};
    for (const double end = monotonic_seconds() + 30; monotonic_seconds() < end && names_in(files_of(rank())) != left;) sleep_seconds(0.01);
    EXPECT_EQ(names_in(files_of(rank())), left);
  }
  save(*all, 30, {.local = true});
  EXPECT_TRUE(outcomes_.back().published) << outcomes_.back().failure;
}

TEST_F(Tiers, ASaveThatAStaleRankFinishesLaterDoesNotCount) {
  three_saves();
  const auto last = files_of(rank()) / "step-00000030.attempt-0001", aside = node(rank()) / "aside";
  fs::rename(last, aside);
  world().barrier();
  {
    auto attempt = begin(rank());
    expect_loads(attempt, 20);
    EXPECT_TRUE(attempt.start->begin(2, 20));
  }
  fs::rename(aside, last);  // attempt 1's ranks were cut off, and are done now
  world().barrier();
  auto attempt = begin(rank());
  expect_loads(attempt, 20);
  if (rank() == 0) {
    EXPECT_THAT(said_, HasSubstr("local step-00000030.attempt-0001: a later attempt went on"));
  }
  EXPECT_TRUE(attempt.start->begin(3, 20));
  EXPECT_EQ(names_in(files_of(rank())), std::vector<std::string>{"step-00000020.attempt-0001"}) << "swept";
}

TEST_F(Tiers, NothingAfterABoundIsUsed) {
  three_saves();
  auto attempt = begin(rank(), 25);
  expect_loads(attempt, 20);
  auto none = begin(rank(), 5);
  EXPECT_FALSE(none.from);
}

TEST_F(Tiers, AnEarlierRunOfThisDirectoryIsSweptAndNeverUsed) {
  three_saves();
  const auto before = names_in(node(rank()));
  world().barrier();
  if (rank() == 0) fs::remove(run_.local_tier());
  world().barrier();
  auto attempt = begin(rank());
  EXPECT_FALSE(attempt.from);
  EXPECT_TRUE(attempt.start->begin(1, 0));
  const auto after = names_in(node(rank()));
  ASSERT_EQ(after.size(), 1U);
  EXPECT_NE(before, after);
}

TEST_F(Tiers, WhatOtherRunsKeepOnTheNodeIsLeftAlone) {
  const auto theirs = node(rank()) / "smlp-0123456789abcdef", unnamed = node(rank()) / "smlp-fedcba9876543210";
  for (const auto& folder : {theirs, unnamed}) fs::create_directories(folder / "host/step-00000010.attempt-0001");
  write_atomically(theirs / "RUN", "/another/run\n");
  auto attempt = begin(rank());
  EXPECT_TRUE(attempt.start->begin(1, 0));
  for (const auto& folder : {theirs, unnamed}) EXPECT_TRUE(fs::exists(folder / "host/step-00000010.attempt-0001")) << folder;
}

TEST(ShardExchange, CarriesFilesOfAnySizeInSmallChunks) {
  if (alone()) GTEST_SKIP() << "two ranks";
  const Scratch scratch;
  std::vector<std::string> hosts(static_cast<std::size_t>(ranks()), "one");
  const auto partners = partners_of(rank(), hosts);
  ShardExchange exchange(world().split(0, rank()), partners, scratch.root(), 64);
  int number = 0;
  for (const std::size_t bytes : {0U, 1U, 63U, 64U, 65U, 5000U}) {
    const SaveId save{++number, 1};
    const auto text = [&](int of) {
      std::string content(bytes + static_cast<std::size_t>(of), 'x');
      for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 + static_cast<std::size_t>(of));
      return content;
    };
    const auto mine = local_files(scratch.root(), save, rank(), false);
    fs::create_directories(mine.shard.parent_path());
    write_atomically(mine.shard, text(rank()));
    write_atomically(mine.sidecar, fmt::format("sidecar of {}", rank()));
    world().barrier();
    exchange.begin(save);
    while (!exchange.done()) {
      exchange.poll();
      std::this_thread::yield();
    }
    EXPECT_EQ(exchange.failure(), "");
    const int from = partners.from.at(0);
    const auto copy = local_files(scratch.root(), save, from, true);
    EXPECT_EQ(read_text(copy.shard), text(from)) << bytes;
    EXPECT_EQ(read_text(copy.sidecar), fmt::format("sidecar of {}", from));
  }
}

}  // namespace
}  // namespace smlp::test
