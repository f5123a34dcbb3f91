#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"
#include "core/error.h"
#include "core/files.h"
#include "tests/checkpoint/sample.h"
#include "tests/comm/faraway_backend.h"

namespace smlp::test {

namespace fs = std::filesystem;
using State = CheckpointWriter::State;

// Waits inside the writing thread until told to go on: shows what is there meanwhile.
struct Gate {
  static inline std::atomic<bool> closed = false;
  static inline std::atomic<int> waiting = 0;
  static void pause(const char* operation) {
    if (std::string_view(operation) != "write") return;
    ++waiting;
    while (closed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    --waiting;
  }
  Gate() {
    closed = true;
    fault_point = &Gate::pause;
  }
  ~Gate() {
    closed = false;
    while (waiting > 0) std::this_thread::yield();
    fault_point = nullptr;
  }
  static void await_writer() {
    while (waiting == 0) std::this_thread::yield();
  }
};

TEST(Writer, PassesThroughItsStates) {
  const Scratch scratch;
  CheckpointWriter writer(options_for(scratch.root(), 1));
  EXPECT_EQ(writer.state(), State::idle);
  SampleRank memory(0, 1);
  memory.fill(4);
  {
    const Gate gate;
    writer.begin(memory.backend(), memory.pieces(), sample_state(4));
    EXPECT_EQ(writer.state(), State::writing);
    Gate::await_writer();
    EXPECT_TRUE(list_checkpoints(scratch.root(), false).empty());
    EXPECT_THROW(writer.begin(memory.backend(), memory.pieces(), sample_state(5)), Error);
    EXPECT_THROW(writer.publish(), Error);
  }
  memory.wipe();
  writer.wait();
  EXPECT_EQ(writer.state(), State::written);
  EXPECT_EQ(names_in(scratch.root()),
            (std::vector<std::string>{"ATTEMPT", "step-00000004.attempt-0001.tmp"}));
  EXPECT_EQ(names_in(scratch.root() / "step-00000004.attempt-0001.tmp"),
            (std::vector<std::string>{"rank-0000.h5", "rank-0000.json"}));
  EXPECT_EQ(writer.written_bytes(), static_cast<std::int64_t>(fs::file_size(
                                        scratch.root() / "step-00000004.attempt-0001.tmp" / "rank-0000.h5")));
  EXPECT_GT(writer.write_seconds(), 0);
  EXPECT_GT(writer.stall_seconds(), 0);
  {
    const Gate gate;
    writer.publish();
    EXPECT_EQ(writer.state(), State::publishing);
  }
  writer.wait();
  EXPECT_EQ(writer.state(), State::published) << writer.failure();
  EXPECT_EQ(writer.note(), "");
  writer.release();
  EXPECT_EQ(writer.state(), State::idle);
  EXPECT_EQ(names_in(scratch.root()), (std::vector<std::string>{"ATTEMPT", "LATEST", "step-00000004"}));
  EXPECT_EQ(names_in(step_path(scratch.root(), 4)),
            (std::vector<std::string>{"manifest.json", "rank-0000.h5", "whole.h5"}));
  EXPECT_EQ(read_text(scratch.root() / "LATEST"), "step-00000004\n");
  EXPECT_EQ(load_fault(step_path(scratch.root(), 4), 1, 4), "");
}

struct Device final : FarawayBackend {
  bool in_host_memory() const noexcept override { return false; }
};

// The first save took it while the loop waited: some twenty seconds for the 50 GB of a large model.
TEST(Writer, MemoryForTheCopyOfADeviceIsTakenBeforeTheFirstSave) {
  const Scratch scratch;
  Device device;
  SampleRank memory(0, 1);
  memory.fill(4);
  CheckpointWriter writer(options_for(scratch.root(), 1));
  writer.prepare(device, memory.pieces());
  EXPECT_EQ(device.host_blocks, 1);
  writer.begin(device, memory.pieces(), sample_state(4));
  EXPECT_EQ(device.host_blocks, 1);
  writer.wait();
  writer.publish();
  writer.wait();
  writer.release();
  EXPECT_EQ(load_fault(step_path(scratch.root(), 4), 1, 4), "");
}

std::atomic<int> creating = 0;
std::atomic<bool> first_may_create = false;

// A rank that failed removed the folder, empty as it was, that a peer had just made: the save was told to have failed for
// want of it, and not for what had gone wrong.
TEST(Writer, ARankThatFailsLeavesItsPeersTheFolder) {
  const Scratch scratch;
  SampleRank memory(0, 2), others(1, 2);
  auto options = options_for(scratch.root(), 2);
  CheckpointWriter first(options);
  options.rank = 1;
  CheckpointWriter second(options);
  fault_point = [](const char* operation) {
    if (std::string_view(operation) != "create file" || first_may_create) return;
    if (++creating > 1) throw Error(ExitCode::io_failed, "planted: the disk is full");
    while (!first_may_create) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  first.begin(memory.backend(), memory.pieces(), sample_state(4));
  while (creating == 0) std::this_thread::yield();
  second.begin(others.backend(), others.pieces(), sample_state(4));
  second.wait();
  first_may_create = true;
  first.wait();
  fault_point = nullptr;
  EXPECT_NE(second.failure().find("failed on rank 1: planted: the disk is full"), std::string::npos) << second.failure();
  EXPECT_EQ(first.state(), State::written) << first.failure();
  for (auto* writer : {&first, &second}) writer->release();
  EXPECT_EQ(names_in(scratch.root()), std::vector<std::string>{"ATTEMPT"});
}

TEST(Writer, SaysHowLongTheDiskOwesItAnAnswer) {
  const Scratch scratch;
  CheckpointWriter writer(options_for(scratch.root(), 1));
  SampleRank memory(0, 1);
  memory.fill(4);
  EXPECT_FALSE(writer.waits_for_disk());
  const auto waits_long = [&] {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < end) {
      const auto wait = writer.waits_for_disk();
      if (wait && wait->step == 4 && wait->seconds > 0.3) return true;
    }
    return false;
  };
  {
    const Gate gate;
    writer.begin(memory.backend(), memory.pieces(), sample_state(4));
    EXPECT_TRUE(waits_long()) << "for the shard";
  }
  writer.wait();
  EXPECT_FALSE(writer.waits_for_disk());
  {
    const Gate gate;
    writer.publish();
    EXPECT_TRUE(waits_long()) << "for what rank 0 publishes";
  }
  writer.wait();
  EXPECT_FALSE(writer.waits_for_disk());
  EXPECT_EQ(writer.state(), State::published);
}

// Each answer of the disk counts, and others' files, which rank 0 waits for, are none of its own writing.
TEST(Writer, ASlowDiskAnswersAndALateFileOfAnotherRankIsNoWaitForTheDisk) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 2);
  options.patience_seconds = 1;
  CheckpointWriter writer(options);
  SampleRank memory(0, 2);
  memory.fill(4);
  double longest = 0, waited = 0;
  const auto watch_until_over = [&](State under_way) {
    while (writer.state() == under_way) {
      if (const auto wait = writer.waits_for_disk()) longest = std::max(longest, wait->seconds);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  };
  fault_point = [](const char*) { std::this_thread::sleep_for(std::chrono::milliseconds(100)); };
  const auto began = std::chrono::steady_clock::now();
  writer.begin(memory.backend(), memory.pieces(), sample_state(4));
  watch_until_over(State::writing);
  fault_point = nullptr;
  writer.wait();
  writer.publish();  // rank 1 has written nothing
  watch_until_over(State::publishing);
  waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  EXPECT_EQ(writer.state(), State::failed);
  EXPECT_GT(waited, 1.6);
  EXPECT_LT(longest, 0.8);
}

TEST(Writer, OneWriterSavesManyTimes) {
  const Scratch scratch;
  CheckpointWriter writer(options_for(scratch.root(), 1));
  SampleRank memory(0, 1);
  for (std::int64_t step = 1; step <= 5; ++step) {
    memory.fill(step);
    writer.begin(memory.backend(), memory.pieces(), sample_state(step));
    memory.wipe();
    writer.wait();
    writer.publish();
    writer.wait();
    ASSERT_EQ(writer.state(), State::published) << writer.failure();
    writer.release();
    EXPECT_EQ(load_fault(step_path(scratch.root(), step), 2, step), "");
  }
}

TEST(Writer, ReleaseGivesUpWhatIsBeingWritten) {
  const Scratch scratch;
  const std::vector<SampleTensor> large = {{"large", {4 << 20}, DType::f32, Spread::replicated}};
  CheckpointWriter writer(options_for(scratch.root(), 1));
  SampleRank memory(0, 1, large);
  std::thread opener;
  {
    const Gate gate;
    writer.begin(memory.backend(), memory.pieces(), sample_state(4));
    Gate::await_writer();
    opener = std::thread([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      Gate::closed = false;
    });
    writer.release();  // at the next block
  }
  opener.join();
  EXPECT_EQ(writer.state(), State::idle);
  EXPECT_EQ(names_in(scratch.root()), (std::vector<std::string>{"ATTEMPT"}));
}

TEST(Writer, DestructorLeavesNothingUnpublishedBehind) {
  const Scratch scratch;
  SampleRank memory(0, 1);
  for (const bool wait : {false, true}) {
    CheckpointWriter writer(options_for(scratch.root(), 1));
    writer.begin(memory.backend(), memory.pieces(), sample_state(4));
    if (wait) writer.wait();
  }
  EXPECT_EQ(names_in(scratch.root()), (std::vector<std::string>{"ATTEMPT"}));
  {
    CheckpointWriter writer(options_for(scratch.root(), 1));
    writer.begin(memory.backend(), memory.pieces(), sample_state(4));
    writer.wait();
    writer.publish();
  }  // waits for the publication
  EXPECT_TRUE(verify_checkpoint(step_path(scratch.root(), 4)).valid);
}

// A rank that ends in an orderly way must not take its shard from under rank 0, which may be publishing it.
TEST(Writer, AnotherRanksEndLeavesItsShardToRankZero) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 2);
  CheckpointWriter root(options);
  options.rank = 1;
  auto other = std::make_unique<CheckpointWriter>(options);
  SampleRank memory0(0, 2), memory1(1, 2);
  memory0.fill(4);
  memory1.fill(4);
  root.begin(memory0.backend(), memory0.pieces(), sample_state(4));
  other->begin(memory1.backend(), memory1.pieces(), sample_state(4));
  root.wait();
  other->wait();
  other.reset();
  root.publish();
  root.wait();
  EXPECT_EQ(root.state(), State::published) << root.failure();
  EXPECT_EQ(load_fault(step_path(scratch.root(), 4), 3, 4), "");
}

std::string begin_complaint(const std::vector<Piece>& pieces, Backend& backend) {
  const Scratch scratch;
  CheckpointWriter writer(options_for(scratch.root(), 1));
  try {
    writer.begin(backend, pieces, sample_state(1));
  } catch (const Error& error) {
    EXPECT_EQ(writer.state(), State::idle);
    return error.what();
  }
  return "";
}

TEST(Writer, RefusesPiecesThatContradictEachOther) {
  SampleRank memory(0, 1, {{"a", {4, 6}, DType::f32, Spread::replicated}});
  const auto piece = memory.pieces()[0];
  const auto with = [&](auto change) {
    auto pieces = memory.pieces();
    change(pieces);
    return begin_complaint(pieces, memory.backend());
  };
  EXPECT_EQ(with([](auto&) {}), "");
  EXPECT_NE(with([](auto& p) {
              p[0].local = p[0].local.reshaped({4, 6}).column_range(0, 3);
            }).find("strided"),
            std::string::npos);
  EXPECT_NE(with([](auto& p) { p[0].offset = 1; }).find("elements [1, 25) of a tensor of shape [4, 6]"),
            std::string::npos);
  EXPECT_NE(with([](auto& p) { p[0].name = "a//b"; }).find("can't be the name"), std::string::npos);
  EXPECT_NE(with([](auto& p) { p[0].name = ""; }).find("can't be the name"), std::string::npos);
  EXPECT_NE(with([&](auto& p) {
              p.push_back(piece);
              p[1].global_shape = {6, 4};
            }).find("disagree"),
            std::string::npos);
  EXPECT_NE(with([&](auto& p) {
              p.push_back(piece);
              p[1].name = "a/b";
            }).find("named like the group"),
            std::string::npos);
}

// What publish() must refuse: every element exactly once, over all ranks.
std::string publish_complaint(const std::function<void(int, std::vector<Piece>&)>& change) {
  const Scratch scratch;
  std::vector<std::unique_ptr<CheckpointWriter>> writers;
  for (int rank = 0; rank < 2; ++rank) {
    auto options = options_for(scratch.root(), 2);
    options.rank = rank;
    SampleRank memory(rank, 2);
    change(rank, memory.pieces());
    writers.push_back(std::make_unique<CheckpointWriter>(options));
    writers.back()->begin(memory.backend(), memory.pieces(), sample_state(1));
    writers.back()->wait();
    EXPECT_EQ(writers.back()->state(), State::written) << writers.back()->failure();
  }
  writers[0]->publish();
  writers[0]->wait();
  const auto failure = writers[0]->failure();
  EXPECT_EQ(failure.empty(), writers[0]->state() == State::published);
  for (auto& writer : writers) writer->release();
  EXPECT_EQ(names_in(scratch.root()).size(), failure.empty() ? 3u : 1u);
  return failure;
}

Piece& named(std::vector<Piece>& pieces, const std::string& name) {
  return *std::find_if(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.name == name; });
}

TEST(Publish, RefusesWhatDoesNotCoverEveryTensorOnce) {
  EXPECT_EQ(publish_complaint([](int, auto&) {}), "");
  EXPECT_NE(publish_complaint([](int, auto& p) {
              named(p, "embedding.weight").mine = false;
            }).find("no shard holds element 0 of tensor embedding.weight [37, 5]"),
            std::string::npos);
  EXPECT_NE(publish_complaint([](int, auto& p) {
              named(p, "embedding.weight").mine = true;
            }).find("tensor embedding.weight is stored twice"),
            std::string::npos);
  EXPECT_NE(publish_complaint([](int rank, auto& p) {
              if (rank == 1) named(p, "blocks.1.experts.in.weight").mine = false;
            }).find("no shard holds element 60 of tensor blocks.1.experts.in.weight"),
            std::string::npos);
  EXPECT_NE(publish_complaint([](int rank, auto& p) {
              if (rank == 1) named(p, "halves").global_shape = {2, 6};
            }).find("rank 1 says that tensor halves is f16 [2, 6], another rank f16 [6, 2]"),
            std::string::npos);
}

TEST(Publish, WaitsForALateSidecarAndGivesUpInTheEnd) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.patience_seconds = 5;
  const auto folder = scratch.root() / "step-00000004.attempt-0001.tmp";
  SampleRank memory(0, 1);
  memory.fill(4);
  CheckpointWriter writer(options);
  writer.begin(memory.backend(), memory.pieces(), sample_state(4));
  writer.wait();
  fs::rename(folder / "rank-0000.json", folder / "late");
  writer.publish();
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  fs::rename(folder / "late", folder / "rank-0000.json");
  writer.wait();
  EXPECT_EQ(writer.state(), State::published) << writer.failure();

  options.patience_seconds = 0.05;
  CheckpointWriter hasty(options);
  hasty.begin(memory.backend(), memory.pieces(), sample_state(5));
  hasty.wait();
  fs::remove(scratch.root() / "step-00000005.attempt-0001.tmp" / "rank-0000.json");
  hasty.publish();
  hasty.wait();
  EXPECT_EQ(hasty.state(), State::failed);
  EXPECT_NE(hasty.failure().find("did not show up within 0.05 s"), std::string::npos) << hasty.failure();
}

TEST(Publish, RefusesADamagedSidecarOrShard) {
  const auto failure = [](auto damage) {
    const Scratch scratch;
    SampleRank memory(0, 1);
    CheckpointWriter writer(options_for(scratch.root(), 1));
    writer.begin(memory.backend(), memory.pieces(), sample_state(4));
    writer.wait();
    damage(scratch.root() / "step-00000004.attempt-0001.tmp");
    writer.publish();
    writer.wait();
    EXPECT_EQ(writer.state(), State::failed);
    EXPECT_EQ(names_in(scratch.root()), std::vector<std::string>{"ATTEMPT"});  // at once: the disk may be full
    return writer.failure();
  };
  EXPECT_NE(failure([](const fs::path& f) { flip_bit(f / "rank-0000.json", 1000); }).find("was changed"),
            std::string::npos);
  EXPECT_NE(failure([](const fs::path& f) {
              fs::resize_file(f / "rank-0000.h5", 100);
            }).find("has 100 bytes instead of"),
            std::string::npos);
  EXPECT_NE(
      failure([](const fs::path& f) { fs::remove(f / "rank-0000.h5"); }).find("rank-0000.h5 did not show up"),
      std::string::npos);
}

// Whole and sound, but not written for this save.
TEST(Publish, RefusesTheSidecarOfAnother) {
  const auto failure = [](auto change) {
    const Scratch scratch;
    SampleRank memory(0, 1);
    CheckpointWriter writer(options_for(scratch.root(), 1));
    writer.begin(memory.backend(), memory.pieces(), sample_state(4));
    writer.wait();
    const auto path = scratch.root() / "step-00000004.attempt-0001.tmp" / "rank-0000.json";
    auto sidecar = parse_sidecar(read_text(path));
    change(sidecar);
    write_atomically(path, to_text(sidecar));
    writer.publish();
    writer.wait();
    return writer.failure();
  };
  EXPECT_EQ(failure([](Sidecar&) {}), "");
  const auto belongs = [&](auto change, const std::string& to) {
    const auto sentence = failure(change);
    EXPECT_NE(sentence.find("rank-0000.json does not hold: it belongs to " + to), std::string::npos) << sentence;
  };
  belongs([](Sidecar& s) { s.attempt = 2; }, "rank 0 of 1, step 4, attempt 2");
  belongs([](Sidecar& s) { s.step = 3; }, "rank 0 of 1, step 3, attempt 1");
  belongs([](Sidecar& s) { s.rank = 1; }, "rank 1 of 1, step 4, attempt 1");
  belongs([](Sidecar& s) { s.ranks = 2; }, "rank 0 of 2, step 4, attempt 1");
  belongs([](Sidecar& s) { s.shard.file = "rank-0001.h5"; }, "rank 0 of 1, step 4, attempt 1");
}

namespace {
fs::path old_sidecar;
bool there_when_a_file_was_created = false;
void look_for_the_old_sidecar(const char* operation) {
  if (operation == std::string_view("create file")) there_when_a_file_was_created |= fs::exists(old_sidecar);
}
}  // namespace

// Else rank 0 could take it for word of the shard that is only now being written.
TEST(Writer, AnOldSidecarIsGoneBeforeTheShardIsWritten) {
  const Scratch scratch;
  const auto folder = scratch.root() / "step-00000004.attempt-0001.tmp";
  fs::create_directory(folder);
  old_sidecar = folder / "rank-0000.json";
  write_atomically(old_sidecar, "of a failed save");
  SampleRank memory(0, 1);
  CheckpointWriter writer(options_for(scratch.root(), 1));
  fault_point = &look_for_the_old_sidecar;
  writer.begin(memory.backend(), memory.pieces(), sample_state(4));
  writer.wait();
  fault_point = nullptr;
  EXPECT_EQ(writer.state(), State::written) << writer.failure();
  EXPECT_FALSE(there_when_a_file_was_created);
}

// A large tensor's frame and data lie in one file without a gap, in blocks, wherever they fall.
TEST(Writer, SizesAroundTheBlockAndTheAlignment) {
  const Scratch scratch;
  std::vector<SampleTensor> tensors;
  for (const std::int64_t count : {1, 1023, 16384, 16385, 262144, 262145, 300000, 1 << 20}) {
    tensors.push_back({"t" + std::to_string(count), {count}, DType::f32, Spread::flat});
  }
  const auto saved = save(options_for(scratch.root(), 2), 3, tensors);
  ASSERT_TRUE(saved.published) << saved.failure;
  const auto path = step_path(scratch.root(), 3);
  EXPECT_TRUE(verify_checkpoint(path).valid);
  std::int64_t data = 0;
  for (const auto& tensor : tensors) {
    EXPECT_EQ(read_tensor(path, tensor.name), sample_bytes(tensor, 3)) << tensor.name;
    data += tensor.shape.size() * 4;
  }
  for (const auto& shard : read_manifest(path).shards) {
    for (const auto& piece : shard.pieces) {
      const bool aligned = piece.position % 4096 == 0;
      EXPECT_TRUE(aligned || piece.count * 4 < (64 << 10)) << piece.tensor;
    }
  }
  std::int64_t on_disk = 0;
  for (const auto& entry : fs::directory_iterator(path)) on_disk += static_cast<std::int64_t>(entry.file_size());
  EXPECT_EQ(verify_checkpoint(path).bytes, on_disk);
  EXPECT_LT(on_disk, data + data / 20);
}

// Groups had the time of day in them, so that what two ranks call the same bytes was not, from one second to the next.
TEST(Writer, TheSameStateIsTheSameBytesAtAnyTime) {
  const Scratch scratch;
  const auto now = scratch.root() / "now", later = scratch.root() / "later";
  ASSERT_TRUE(save(options_for(now, 1), 10).published);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  ASSERT_TRUE(save(options_for(later, 1), 10).published);
  for (const char* file : {"rank-0000.h5", "whole.h5"}) {
    EXPECT_TRUE(read_text(step_path(now, 10) / file) == read_text(step_path(later, 10) / file)) << file;
  }
}

}  // namespace smlp::test
