// Under mpirun: checkpoints of the shared directory, written by any number of ranks, come into the memory of these.
#include "worker/load_together.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "core/clock.h"
#include "core/error.h"
#include "tests/checkpoint/sample.h"
#include "tests/comm/faraway_backend.h"
#include "tests/comm/ranks.h"
#include "worker/texts.h"

namespace smlp::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

class LoadTogether : public testing::Test {
 protected:
  LoadTogether() : root_(broadcast_text(world(), world().rank() == 0 ? scratch_.root().string() : "")) {}
  void TearDown() override { world().barrier(); }

  StoredSave saved_by(int ranks, const std::vector<SampleTensor>& tensors = sample_tensors()) {
    const auto folder = root_ / std::to_string(ranks);
    if (world().rank() == 0) {
      EXPECT_TRUE(save(options_for(folder, ranks), 10, tensors).published);
    }
    world().barrier();
    return shared_save(step_path(folder, 10), world().size());
  }

  SampleRank memory_{world().rank(), world().size()};
  Scratch scratch_;
  fs::path root_;
};

// 512 ranks read the replicated tensors of a checkpoint 512 times from the shared disk.
TEST_F(LoadTogether, EachShardIsReadByOneRankWhoeverNeedsIt) {
  for (const int writers : {1, 2, 3, 5}) {
    auto save = saved_by(writers);
    for (auto& source : save.sources) {
      if (source.reader != world().rank()) source.file = root_ / "read by somebody else";
    }
    for (const std::int64_t block_bytes : {8, 24, 1 << 20}) {
      memory_.wipe();
      load_together(save, world(), memory_.backend(), memory_.pieces(), {.block_bytes = block_bytes});
      EXPECT_THAT(memory_.wrong(10), IsEmpty()) << "written by " << writers << ", blocks of " << block_bytes;
    }
  }
}

TEST_F(LoadTogether, WeightsAloneLeaveTheOptimisersStateAsItIs) {
  const auto save = saved_by(3);
  memory_.fill(20);
  load_together(save, world(), memory_.backend(), memory_.pieces(), {.weights_only = true});
  for (const auto& name : memory_.wrong(10)) EXPECT_FALSE(is_weight(name)) << name;
  for (const auto& name : memory_.wrong(20)) EXPECT_TRUE(is_weight(name)) << name;
}

// What a rank needs of a large piece that another layout wrote travels, and not the piece.
TEST_F(LoadTogether, ARankGetsTheBlocksItNeeds) {
  if (world().size() == 1) GTEST_SKIP() << "two ranks";
  const std::vector<SampleTensor> large = {{"adam.m/large", {1 << 18}, DType::f32, Spread::flat}};
  const auto save = saved_by(1, large);
  SampleRank memory(world().rank(), world().size(), large);
  memory.wipe();
  const auto sent = world().bytes_sent();
  auto& backend = dynamic_cast<FarawayBackend&>(memory.backend());
  const auto uploads = backend.uploads;
  load_together(save, world(), backend, memory.pieces(), {.block_bytes = 1 << 14});
  EXPECT_THAT(memory.wrong(10), IsEmpty());
  EXPECT_LE(backend.uploads - uploads, 64 / world().size() + 2) << "blocks of 16 KiB, of 1 MiB";
  EXPECT_LT(world().bytes_sent() - sent, 1 << 12) << "no broadcast";
}

// Ranks that had read all they need waited in one collective for the slowest disk, and were ended as hung.
TEST_F(LoadTogether, WhoIsDoneEarlyWaitsInManySmallCollectives) {
  if (world().size() == 1) GTEST_SKIP() << "two ranks";
  const std::vector<SampleTensor> own = {{"own", {64 * world().size()}, DType::f32, Spread::flat}};
  const auto save = saved_by(world().size(), own);
  SampleRank memory(world().rank(), world().size(), own);
  const auto calls_where_a_block_takes = [&](double seconds) {
    const auto before = world().calls();
    const bool slow = world().rank() == world().size() - 1;
    load_together(save, world(), memory.backend(), memory.pieces(),
                  {.between = [&] { if (slow) sleep_seconds(seconds); }, .block_bytes = 16});
    EXPECT_THAT(memory.wrong(10), IsEmpty());
    return world().calls() - before;
  };
  const auto fast = calls_where_a_block_takes(0);
  EXPECT_GE(calls_where_a_block_takes(0.2), fast + 2) << "16 blocks take three seconds";
}

TEST_F(LoadTogether, AShardThatRotsAfterItsVerificationIsRefused) {
  if (world().size() > 1) GTEST_SKIP() << "one rank: peers of one that throws wait for ever";
  const auto save = saved_by(2);
  const auto shard = save.sources[1].file;
  const auto bits = static_cast<std::int64_t>(fs::file_size(shard)) * 8;
  for (int part = 1; part < 32; ++part) flip_bit(shard, bits * part / 32);
  try {
    load_together(save, world(), memory_.backend(), memory_.pieces(), {.block_bytes = 24});
    ADD_FAILURE() << "not noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_THAT(error.what(), HasSubstr("does not match its digest any more: rank 0 read it from " + shard.string()));
    EXPECT_THAT(error.what(), HasSubstr("of " + save.name));
  }
}

TEST_F(LoadTogether, RefusesTensorsThatTheModelDoesNotHave) {
  const auto save = saved_by(2);
  SampleRank fewer(world().rank(), world().size(), few_tensors());
  EXPECT_THROW(load_together(save, world(), fewer.backend(), fewer.pieces()), Error);
}

}  // namespace
}  // namespace smlp::test
