// What ranks begin from after local saves, lost and damaged ones: who loads what from where.
#include <chrono>

#include "checkpoint/names.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"
#include "tests/without_rights.h"
#include "tests/worker/tiers.h"
#include "worker/side_by_side.h"

namespace smlp::test {
namespace {

using testing::HasSubstr;

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
    load_together(attempt.from->local->save, world(), memory.backend(), memory.pieces());
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

// The attempt went on without local saves, and a later one from those that had been given up.
TEST_F(Tiers, AStartThatCannotRecordWhatItGivesUpDoesNotBegin) {
  if (!alone()) GTEST_SKIP() << "one rank: peers of one that throws wait for ever";
  three_saves();
  auto attempt = begin(rank(), 25);
  const auto kept = read_text(run_.local_tier());
  fs::remove(run_.local_tier());
  fs::create_directories(run_.local_tier() / "in the way");
  EXPECT_THROW(attempt.start->begin(2, 20), Error);
  fs::remove_all(run_.local_tier());
  write_durably(run_.local_tier(), kept);
  EXPECT_TRUE(attempt.start->begin(2, 20));
  const auto later = begin(rank());
  ASSERT_TRUE(later.from && later.from->local);
  EXPECT_EQ(later.from->local->id.step, 20);
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

}  // namespace
}  // namespace smlp::test
