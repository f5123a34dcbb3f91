// Checkpoints that are copied from the emulated GPU while it takes its next step hold what the step before left: the
// same bits as from the CPU.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <thread>

#include "core/features.h"
#include "tests/cuda_emulation/small_model.h"
#include "tests/cuda_emulation/streams.h"
#include "worker/texts.h"

namespace smlp::test {
namespace {

namespace fs = std::filesystem;
using State = CheckpointWriter::State;

// The same folder on all ranks.
class SharedScratch {
 public:
  SharedScratch() {
    auto pattern = (fs::temp_directory_path() / "smlp-device-checkpoint-XXXXXX").string();
    if (world().rank() == 0 && ::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no scratch folder");
    path_ = broadcast_text(world(), pattern);
  }
  ~SharedScratch() {
    world().barrier();
    std::error_code ignored;
    if (world().rank() == 0) fs::remove_all(path_, ignored);
  }
  fs::path path() const { return path_; }

 private:
  fs::path path_;
};

// What pieces hold at some moment, in the memory of a CPU backend.
class OnTheCpu {
 public:
  OnTheCpu(Backend& from, std::vector<Piece> pieces) : pieces_(std::move(pieces)) {
    for (auto& piece : pieces_) {
      const TensorView there = piece.local;
      if (there.size() == 0) continue;
      piece.local.data = backend_->allocate(there.bytes());
      from.download(there, piece.local.data);
    }
  }
  ~OnTheCpu() {
    for (const auto& piece : pieces_) {
      if (piece.local.size() > 0) backend_->release(piece.local.data);
    }
  }
  Backend& backend() { return *backend_; }
  const std::vector<Piece>& pieces() const { return pieces_; }

 private:
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
  std::vector<Piece> pieces_;
};

RunState state_of(std::int64_t step) {
  RunState state;
  state.integers = {{"step", {step}}};
  return state;
}

WriterOptions options_in(const fs::path& root) {
  return {.root = root, .rank = world().rank(), .ranks = world().size(), .keep_last = 9};
}

fs::path folder_of(const fs::path& root, std::int64_t step) { return root / fmt::format("step-{:08d}", step); }

// When begun on all ranks.
void publish(CheckpointWriter& writer) {
  writer.wait();
  EXPECT_EQ(writer.state(), State::written) << writer.failure();
  world().barrier();
  if (world().rank() == 0) {
    writer.publish();
    writer.wait();
    EXPECT_EQ(writer.state(), State::published) << writer.failure();
  }
  world().barrier();
  writer.release();
}

// Every tensor's bytes, and the run state.
void expect_same(const fs::path& got, const fs::path& wanted) {
  EXPECT_EQ(verify_checkpoint(got).reason, "");
  EXPECT_EQ(digest_tensors(got), digest_tensors(wanted));
  for (const auto& difference : diff_checkpoints(got, wanted)) ADD_FAILURE() << difference.name << ": " << difference.what;
}

// The checkpoint that is there from the device is what a CPU writes of the same values.
void expect_the_cpus(const fs::path& root, std::int64_t step, OnTheCpu& values) {
  CheckpointWriter from_cpu(options_in(root / "cpu"));
  from_cpu.begin(values.backend(), values.pieces(), state_of(step));
  publish(from_cpu);
  expect_same(folder_of(root / "device", step), folder_of(root / "cpu", step));
}

class DeviceCheckpoint : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!built_with_hdf5()) GTEST_SKIP() << "built without HDF5";
  }
  void TearDown() override {
    emulation::set_slow_downloads(false);
    emulation::set_pinned_limit(std::size_t{1} << 40);
  }

  static JobConfig job(const std::string& kind) {
    auto job = small_job(kind, "bf16");
    job.optimizer.shard_states = kind == "smlp";
    if (kind == "switch") job.routing.expert_bias_rate = 0.1;
    return job;
  }
};
INSTANTIATE_TEST_SUITE_P(Of, DeviceCheckpoint, testing::Values("gmlp", "smlp", "switch"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(DeviceCheckpoint, WrittenBesideTheNextStepIsThatOfTheCpu) {
  const SharedScratch scratch;
  SmallRun run(job(GetParam()), Ranks::by_nccl, make_cuda_backend());
  auto& backend = run.engine().backend();
  const auto pieces = run.engine().pieces(true);
  CheckpointWriter from_device(options_in(scratch.path() / "device"));
  run.step();
  for (int save = 0; save < 2; ++save) {  // the second into the memory of the first
    const auto step = run.steps();
    OnTheCpu then(backend, pieces);
    emulation::set_slow_downloads(true);
    from_device.begin(backend, pieces, state_of(step));
    run.step();
    emulation::set_slow_downloads(false);
    const OnTheCpu now(backend, pieces);
    bool moved = false;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const auto bytes = static_cast<std::size_t>(pieces[i].local.bytes());
      moved = moved || std::memcmp(then.pieces()[i].local.data, now.pieces()[i].local.data, bytes) != 0;
    }
    EXPECT_TRUE(moved) << "the step changed nothing, and shows nothing";
    publish(from_device);
    expect_the_cpus(scratch.path(), step, then);
  }
}

TEST_P(DeviceCheckpoint, ACopyThatIsTakenOverIsTheSame) {
  const SharedScratch scratch;
  SmallRun run(job(GetParam()), Ranks::by_nccl, make_cuda_backend());
  auto& backend = run.engine().backend();
  const auto pieces = run.engine().pieces(true);
  auto local = options_in(scratch.path() / "local");
  local.local = true;
  fs::create_directories(local.root);
  CheckpointWriter first(local), second(options_in(scratch.path() / "device"));
  run.step();
  OnTheCpu then(backend, pieces);
  emulation::set_slow_downloads(true);
  first.begin(backend, pieces, state_of(1));
  run.step();
  second.take_over(first);  // given up, but for the copy
  emulation::set_slow_downloads(false);
  publish(second);
  first.release();
  expect_the_cpus(scratch.path(), 1, then);
}

TEST_P(DeviceCheckpoint, IsWrittenWithoutPinnedMemoryToo) {
  const SharedScratch scratch;
  SmallRun run(job(GetParam()), Ranks::by_nccl, make_cuda_backend());
  auto& backend = run.engine().backend();
  const auto pieces = run.engine().pieces(true);
  CheckpointWriter from_device(options_in(scratch.path() / "device"));
  run.step();
  OnTheCpu then(backend, pieces);
  std::ostringstream log;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  emulation::set_pinned_limit(64);
  from_device.begin(backend, pieces, state_of(1));
  spdlog::set_default_logger(before);
  EXPECT_NE(log.str().find("checkpoints are copied into ordinary memory"), std::string::npos) << log.str();
  run.step();
  publish(from_device);
  expect_the_cpus(scratch.path(), 1, then);
}

TEST_P(DeviceCheckpoint, AWriterThatEndsWaitsForItsCopy) {
  const SharedScratch scratch;
  const auto root = scratch.path() / "device";
  const bool first = world().rank() == 0;
  SmallRun run(job(GetParam()), Ranks::by_nccl, make_cuda_backend());
  const auto pieces = run.engine().pieces(true);
  run.step();
  std::atomic<bool> copied = false;
  std::jthread device;
  emulation::set_slow_downloads(true);
  {
    CheckpointWriter writer(options_in(root));
    writer.begin(run.engine().backend(), pieces, state_of(1));
    if (first) world().barrier();  // the other ranks' writers end before
    device = std::jthread([&copied] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      copied = true;
      emulation::set_slow_downloads(false);
    });
  }
  EXPECT_TRUE(copied) << "the writer ended before its copy";
  if (!first) world().barrier();
  world().barrier();
  for (const auto& left : fs::directory_iterator(root)) EXPECT_NE(left.path().extension(), ".tmp") << left.path();
  run.step();
}

}  // namespace
}  // namespace smlp::test
