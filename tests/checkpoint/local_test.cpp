// The files of a node's own folder: what the writer leaves there, what is listed, what goes.
#include "checkpoint/local.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "core/files.h"
#include "tests/checkpoint/newer_format.h"
#include "tests/checkpoint/sample.h"
#include "tests/comm/faraway_backend.h"

namespace smlp::test {

namespace fs = std::filesystem;

namespace {

using State = CheckpointWriter::State;
using Names = std::vector<std::string>;

WriterOptions local_options(const fs::path& root, int rank, int ranks, int attempt = 1) {
  auto options = options_for(root, ranks, attempt);
  options.rank = rank;
  options.local = true;
  return options;
}

void begin(CheckpointWriter& writer, int rank, int ranks, std::int64_t step) {
  SampleRank memory(rank, ranks);
  memory.fill(step);
  writer.begin(memory.backend(), memory.pieces(), sample_state(step));
  memory.wipe();
}

void save_locally(const fs::path& root, int ranks, std::int64_t step, int attempt = 1) {
  for (int rank = 0; rank < ranks; ++rank) {
    CheckpointWriter writer(local_options(root, rank, ranks, attempt));
    begin(writer, rank, ranks, step);
    writer.wait();
    writer.publish();
    EXPECT_EQ(writer.state(), State::published) << writer.failure();
  }
}

TEST(LocalWriter, LeavesWhatAllRanksHaveAndRemovesWhatTheyHaveNot) {
  const Scratch scratch;
  {
    CheckpointWriter writer(local_options(scratch.root(), 1, 2, 3));
    begin(writer, 1, 2, 10);
    writer.wait();
    EXPECT_EQ(writer.state(), State::written) << writer.failure();
    writer.publish();
    writer.release();
    EXPECT_EQ(names_in(scratch.root()), Names{"step-00000010.attempt-0003"});
    EXPECT_EQ(names_in(scratch.root() / "step-00000010.attempt-0003"), (Names{"rank-0001.h5", "rank-0001.json"}));
    begin(writer, 1, 2, 20);
    writer.wait();
    writer.release();  // another rank's part failed
    EXPECT_EQ(names_in(scratch.root()), Names{"step-00000010.attempt-0003"});
    begin(writer, 1, 2, 30);
    writer.wait();
  }  // an end in between: the others may have theirs
  EXPECT_EQ(names_in(scratch.root()), (Names{"step-00000010.attempt-0003", "step-00000030.attempt-0003"}));
}

// It counted as damaged, and went with all that a start did not keep.
TEST(LocalListing, ASaveOfANewerFormatIsNoDamage) {
  const Scratch scratch;
  save_locally(scratch.root(), 1, 10);
  make_newer_format(scratch.root() / "step-00000010.attempt-0001", "rank-0000.json");
  try {
    list_local(scratch.root());
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    const std::string said = error.what();
    EXPECT_NE(said.find("rank-0000.json belongs to was written by a newer smlp (it is of format version 2"), said.npos) << said;
  }
}

TEST(TakeOver, WritesTheSameCopyElsewhereWithoutAnother) {
  const Scratch scratch;
  const auto shared = scratch.root() / "shared", local = scratch.root() / "local";
  CheckpointWriter first(local_options(local, 0, 1)), second(options_for(shared, 1));
  for (const std::int64_t step : {10, 20}) {
    SampleRank memory(0, 1);
    memory.fill(step);
    first.begin(memory.backend(), memory.pieces(), sample_state(step));
    const int downloads = dynamic_cast<FarawayBackend&>(memory.backend()).downloads;
    memory.wipe();
    first.wait();
    second.take_over(first);
    first.publish();
    first.release();
    second.wait();
    EXPECT_EQ(dynamic_cast<FarawayBackend&>(memory.backend()).downloads, downloads);
    EXPECT_EQ(second.stall_seconds(), 0);
    second.publish();
    second.wait();
    ASSERT_EQ(second.state(), State::published) << second.failure();
    second.release();
    EXPECT_EQ(load_fault(step_path(shared, step), 3, step), "");
    EXPECT_TRUE(read_text(step_path(shared, step) / "rank-0000.h5") ==
                read_text(local_files(local, {step, 1}, 0, false).shard));
  }
}

TEST(TakeOver, GoesOnWhereTheFirstFailed) {
  const Scratch scratch;
  const auto shared = scratch.root() / "shared", local = scratch.root() / "local";
  write_atomically(local, "no folder");
  CheckpointWriter first(local_options(local, 0, 1)), second(options_for(shared, 1));
  begin(first, 0, 1, 10);
  first.wait();
  ASSERT_EQ(first.state(), State::failed);
  second.take_over(first);
  first.release();
  second.wait();
  second.publish();
  second.wait();
  ASSERT_EQ(second.state(), State::published) << second.failure();
  EXPECT_EQ(load_fault(step_path(shared, 10), 1, 10), "");
}

TEST(LocalListing, HoldsShardsWithASoundSidecarOfTheirOwn) {
  const Scratch scratch;
  const auto& root = scratch.root();
  save_locally(root, 2, 10);
  save_locally(root, 2, 20, 2);
  const auto copy = local_files(root, {20, 2}, 1, true), mine = local_files(root, {20, 2}, 1, false);
  fs::rename(mine.shard, copy.shard);
  fs::rename(mine.sidecar, copy.sidecar);
  fs::create_directories(root / "step-00000030.attempt-0001");
  write_atomically(local_files(root, {30, 1}, 0, false).shard, "no sidecar yet");
  write_atomically(root / "step-00000020.attempt-0002" / "notes.json", "{}");
  auto listing = list_local(root);
  EXPECT_EQ(listing.faults, Names{});
  ASSERT_EQ(listing.shards.size(), 4U);
  EXPECT_EQ(listing.shards[0].save, (SaveId{10, 1}));
  EXPECT_FALSE(listing.shards[2].copy);
  EXPECT_TRUE(listing.shards[3].copy);
  EXPECT_EQ(listing.shards[3].rank, 1);
  for (const auto& shard : listing.shards) EXPECT_EQ(verify_local(shard), "");

  // Another's sidecar under this name, and a torn one.
  fs::copy_file(local_files(root, {10, 1}, 1, false).sidecar, local_files(root, {20, 2}, 0, false).sidecar,
                fs::copy_options::overwrite_existing);
  fs::resize_file(copy.sidecar, 100);
  listing = list_local(root);
  EXPECT_EQ(listing.shards.size(), 2U);
  ASSERT_EQ(listing.faults.size(), 2U);
  EXPECT_NE(listing.faults[0].find("it belongs to rank 1 of 2, step 10, attempt 1"), std::string::npos)
      << listing.faults[0];
  EXPECT_NE(listing.faults[1].find("rank-0001.copy.json does not hold"), std::string::npos) << listing.faults[1];
}

// Sound in itself, of the same save, but under the name of its neighbour.
TEST(LocalListing, ASidecarOfAnotherRankIsNotBelieved) {
  const Scratch scratch;
  save_locally(scratch.root(), 2, 10);
  const auto zero = local_files(scratch.root(), {10, 1}, 0, false), one = local_files(scratch.root(), {10, 1}, 1, false);
  fs::copy_file(zero.sidecar, one.sidecar, fs::copy_options::overwrite_existing);
  const auto listing = list_local(scratch.root());
  EXPECT_EQ(listing.shards.size(), 1U);
  ASSERT_EQ(listing.faults.size(), 1U);
  EXPECT_NE(listing.faults[0].find("it belongs to rank 0 of 2"), std::string::npos) << listing.faults[0];
}

template <class Action>
std::string refusal(const Action& action) {
  try {
    action();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Assembly, TensorsOfTwoShapesOrPiecesThatOverlapMakeNoCheckpoint) {
  const auto part = [](int rank, std::int64_t elements) {
    return Sidecar{.step = 1, .attempt = 1, .rank = rank, .ranks = 2, .state = {},
                   .tensors = {{"w", {elements}, DType::f32}}, .shard = {}};
  };
  EXPECT_NE(refusal([&] { manifest_of({part(0, 4), part(1, 8)}); }).find("rank 1 says that tensor w is"), std::string::npos);
  auto manifest = manifest_of({part(0, 4), part(1, 4)});
  manifest.shards[0] = {.file = "rank-0000.h5", .size = 100, .frame_digest = {},
                        .pieces = {{"w", 0, 2, 10, ""}, {"w", 2, 2, 18, ""}}};
  EXPECT_EQ(refusal([&] { check_places(manifest); }), "");
  manifest.shards[0].pieces[1].position = 17;
  EXPECT_NE(refusal([&] { check_places(manifest); }).find("pieces overlap in rank-0000.h5 at byte 17"), std::string::npos);
  manifest.shards[0].pieces[1].position = 93;
  EXPECT_NE(refusal([&] { check_places(manifest); }).find("go beyond its end"), std::string::npos);
}

TEST(LocalListing, EveryBitOfAShardIsUnderADigest) {
  const Scratch scratch;
  save_locally(scratch.root(), 1, 10);
  const auto shard = list_local(scratch.root()).shards.at(0);
  const auto bits = static_cast<std::int64_t>(fs::file_size(shard.file)) * 8;
  for (std::int64_t bit = 0; bit < bits; bit += bits / 97) {
    flip_bit(shard.file, bit);
    EXPECT_NE(verify_local(shard), "") << bit;
    flip_bit(shard.file, bit);
  }
  EXPECT_EQ(verify_local(shard), "");
  fs::resize_file(shard.file, static_cast<std::uintmax_t>(bits / 8 - 1));
  EXPECT_NE(verify_local(shard).find("its sidecar says"), std::string::npos);
  fs::remove(shard.file);
  EXPECT_NE(verify_local(shard), "");
}

TEST(LocalFolder, KeepsWhatIsNamedAndWhatMayBeUnderWay) {
  const Scratch scratch;
  for (const std::int64_t step : {10, 20, 30, 40}) save_locally(scratch.root(), 1, step);
  const std::vector<SaveId> keep = {{20, 1}, {30, 1}};
  keep_local(scratch.root(), keep, 30);
  EXPECT_EQ(names_in(scratch.root()), (Names{"step-00000020.attempt-0001", "step-00000030.attempt-0001",
                                             "step-00000040.attempt-0001"}));
  keep_local(scratch.root(), keep);
  EXPECT_EQ(names_in(scratch.root()), (Names{"step-00000020.attempt-0001", "step-00000030.attempt-0001"}));
  keep_local(scratch.root() / "not there", keep);
}

TEST(PieceFiller, FillsAnyLayoutFromTheShardsOfAnother) {
  const Scratch scratch;
  save_locally(scratch.root(), 3, 10);
  std::vector<Sidecar> sidecars;
  for (const auto& shard : list_local(scratch.root()).shards) sidecars.push_back(parse_sidecar(shard.sidecar));
  const auto manifest = manifest_of(sidecars);
  EXPECT_EQ(coverage_fault(manifest.tensors, manifest.shards), "");
  for (const int ranks : {1, 2, 3, 4}) {
    for (int rank = 0; rank < ranks; ++rank) {
      SampleRank memory(rank, ranks);
      memory.wipe();
      PieceFiller filler(manifest, "it", memory.backend(), memory.pieces());
      for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
        const LocalShardReader reader(local_files(scratch.root(), {10, 1}, static_cast<int>(i), false).shard);
        for (const auto& piece : manifest.shards[i].pieces) {
          if (!filler.wants(piece.tensor, piece.offset, piece.count)) continue;
          const auto element = size_of(manifest.find(piece.tensor)->dtype);
          constexpr std::int64_t block = 7;  // elements at a time
          for (std::int64_t done = 0; done < piece.count; done += block) {
            std::vector<std::byte> bytes(static_cast<std::size_t>(std::min(block, piece.count - done) * element));
            reader.read(piece, piece.offset + done, element, bytes);
            filler.fill(piece.tensor, piece.offset + done, bytes);
          }
        }
      }
      EXPECT_EQ(memory.wrong(10), Names{}) << rank << " of " << ranks;
    }
  }
  SampleRank memory(0, 1, few_tensors());
  EXPECT_THROW(PieceFiller(manifest, "it", memory.backend(), memory.pieces()), Error) << "it holds more tensors";
}

}  // namespace
}  // namespace smlp::test
