// Local saves and their copies at partners: what they are, and what troubles them.
#include <atomic>
#include <string_view>
#include <thread>

#include "checkpoint/names.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "tests/worker/tiers.h"

namespace smlp::test {
namespace {

using testing::HasSubstr;

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
