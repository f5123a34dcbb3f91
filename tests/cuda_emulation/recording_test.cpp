// Work that the device keeps and repeats: when it is recorded, when again, and when never.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "tensor/backend.h"
#include "tests/cuda_emulation/emulator.h"
#include "tests/cuda_emulation/streams.h"

namespace smlp::test {
namespace {

using testing::HasSubstr;

// out = 2 · in · inᵀ, in f32, and what it took to get there.
class Recordings : public testing::Test {
 protected:
  ~Recordings() override {
    emulation::refuse({});
    for (void* block : blocks_) backend_->release(block);
  }

  TensorView take(Shape shape) {
    blocks_.push_back(backend_->allocate(shape.size() * 4));
    return {blocks_.back(), shape, DType::f32};
  }

  void double_square() {
    ++calls_;
    backend_->matmul({.a = in_, .b = in_, .out = out_, .transpose_b = true});
    backend_->add(out_, out_, out_);
  }

  // Of {x, 1} in each row of `in`, so that every element is 2 · (x² + 1).
  void repeat_with(float x, const std::function<void()>& work) {
    const std::vector<float> rows = {x, 1, x, 1};
    backend_->upload(rows.data(), in_);
    backend_->fill(out_, -1);
    repeat(work);
    std::array<float, 4> got{};
    backend_->download(out_, got.data());
    for (const float value : got) EXPECT_EQ(value, 2 * (x * x + 1));
  }
  void repeat(const std::function<void()>& work) {
    const std::array<WorkPart, 1> parts = {WorkPart{[this] { ++begun_; }, work}};
    backend_->repeat(recording_, baked_in_, parts);
  }
  void repeat_with(float x) {
    repeat_with(x, [this] { double_square(); });
  }

  const std::unique_ptr<Backend> backend_ = make_cuda_backend();
  std::vector<void*> blocks_;
  TensorView in_ = take({2, 2}), out_ = take({2, 2});
  std::vector<std::int64_t> baked_in_ = {2};
  Recording recording_;
  int calls_ = 0, begun_ = 0;
};

TEST_F(Recordings, ReadTheMemoryOfTheMomentAndCallNothing) {
  for (int i = 0; i < 5; ++i) repeat_with(static_cast<float>(i));
  EXPECT_EQ(calls_, 2) << "one plain, one recorded";
  EXPECT_EQ(begun_, 5) << "the host's part of it, each time";
  EXPECT_EQ(recording_.repeats, 4);
  EXPECT_EQ(recording_.refusal, "");
}

TEST_F(Recordings, PartsComeInTurnWithTheHostsBetweenThem) {
  std::string told;
  const std::array<WorkPart, 2> parts = {
      WorkPart{[&] { told += "a"; }, [&] { told += "A", backend_->activate(Activation::none, in_, out_); }},
      WorkPart{[&] { told += "b"; }, [&] { told += "B", backend_->add(out_, in_, out_); }}};
  const std::vector<float> rows = {1, 2, 3, 4};
  backend_->upload(rows.data(), in_);
  for (int i = 0; i < 4; ++i) {
    backend_->fill(out_, -1);
    backend_->repeat(recording_, baked_in_, parts);
    std::array<float, 4> got{};
    backend_->download(out_, got.data());
    EXPECT_THAT(got, testing::ElementsAre(2, 4, 6, 8));
  }
  EXPECT_EQ(told, "aAbB" "ABab" "ab" "ab") << "plainly, recorded, and twice as it was";
  EXPECT_EQ(recording_.repeats, 3);
}

TEST_F(Recordings, AreMadeAgainWhenWhatTheyHoldHasChanged) {
  for (int i = 0; i < 3; ++i) repeat_with(static_cast<float>(i));
  baked_in_ = {3};
  out_ = take({2, 2});
  for (int i = 0; i < 3; ++i) repeat_with(static_cast<float>(i));
  EXPECT_EQ(calls_, 4);
  EXPECT_EQ(recording_.repeats, 4);
}

TEST_F(Recordings, AreThrownAwayWithTheMemoryTheyMayPointTo) {
  for (int i = 0; i < 3; ++i) repeat_with(static_cast<float>(i));
  backend_->release(backend_->allocate(64));
  for (int i = 0; i < 3; ++i) repeat_with(static_cast<float>(i));
  EXPECT_EQ(calls_, 4);
}

// Scratch memory of verbs grows in other work in between, which frees what the recording writes to.
TEST_F(Recordings, OutliveTheGrowthOfScratchMemory) {
  const TensorView x = take({64, 2}), sums = take({2}), wide = take({1, 1 << 20}), wide_sums = take({1 << 20});
  const auto work = [&] {
    double_square();
    backend_->fill(sums, 0);
    backend_->sum_rows(x, sums);
  };
  backend_->fill(x, 1);
  const auto repeat_and_look = [&](float value) {
    repeat_with(value, work);
    std::array<float, 2> got{};
    backend_->download(sums, got.data());
    EXPECT_EQ(got, (std::array<float, 2>{64, 64}));
  };
  for (int i = 0; i < 4; ++i) repeat_and_look(static_cast<float>(i));
  EXPECT_GT(recording_.repeats, 0);
  for (const std::int64_t width : {std::int64_t{1} << 19, std::int64_t{1} << 20}) {
    backend_->fill(wide, 1);
    backend_->sum_rows(wide.column_range(0, width), wide_sums.row_range(0, width));
    const auto before = recording_.repeats;
    for (int i = 0; i < 5; ++i) repeat_and_look(static_cast<float>(i));
    EXPECT_GT(recording_.repeats, before) << "once all memory lies where it stays";
  }
  EXPECT_EQ(recording_.refusal, "");
}

TEST_F(Recordings, WorkThatCannotBeKeptIsDonePlainly) {
  const auto refused = [&](const char* why, const std::function<void()>& more) {
    SCOPED_TRACE(why);
    recording_ = Recording();
    calls_ = 0;
    for (int i = 0; i < 4; ++i) {
      repeat_with(static_cast<float>(i), [&] {
        double_square();
        more();
      });
    }
    EXPECT_EQ(calls_, 5) << "each time, and once to be recorded";
    EXPECT_EQ(recording_.repeats, 0);
    EXPECT_THAT(recording_.refusal, HasSubstr(why));
  };
  std::array<float, 4> host{1, 1, 1, 1};
  const TensorView spare = take({4});
  refused("memory of the host is written", [&] { backend_->download(in_, host.data()); });
  refused("memory of the host is read", [&] { backend_->upload(host.data(), spare); });
  refused("the host waits", [&] { backend_->synchronize(); });
  refused("pinned memory is allocated", [&] {
    if (calls_ > 1) backend_->release_host(backend_->allocate_host(4));
  });
  // Calls of the runtime that the backend doesn't know of.
  refused("is recorded", [&] {
    if (calls_ == 2) throw Error(ExitCode::fault, "anything, while it is recorded");
  });
  refused("an error of the emulation", [&] { cudaFree(nullptr); });
}

TEST_F(Recordings, MemoryIsNeverFreedUnderwayAndWhatWasReleasedIsFreedAfterwards) {
  const auto spare = backend_->allocate(64);
  repeat_with(1);
  bool released = false;
  repeat_with(2, [&] {
    double_square();
    if (!std::exchange(released, true)) backend_->release(spare);
  });
  EXPECT_THAT(recording_.refusal, HasSubstr("memory is released"));
}

TEST_F(Recordings, ADeviceThatRefusesAGraphGetsTheCalls) {
  repeat_with(1);
  emulation::refuse_graph(cudaErrorMemoryAllocation);
  for (int i = 0; i < 3; ++i) repeat_with(static_cast<float>(i));
  EXPECT_EQ(calls_, 5);
  EXPECT_THAT(recording_.refusal, HasSubstr("the recorded work could not be made ready: out of memory"));
}

// A library may be unable to do in a recording what it does otherwise: what it can do is not forgotten over it.
TEST_F(Recordings, AProductThatFailsInOneIsMadePlainlyByTheSameAlgorithm) {
  const auto made = [&](float x) {
    const std::int64_t before = emulation::products();
    repeat_with(x);
    return emulation::products() - before;
  };
  EXPECT_EQ(made(1), 1);
  emulation::refuse({.recorded = true});
  EXPECT_EQ(made(2), 1) << "by the library, after the recording has failed";
  EXPECT_THAT(recording_.refusal, HasSubstr("in work that is to be recorded"));
  EXPECT_EQ(made(3), 1);
  emulation::refuse({});
  recording_ = Recording();
  for (int i = 0; i < 3; ++i) repeat_with(static_cast<float>(i));
  EXPECT_EQ(recording_.repeats, 2);
}

TEST_F(Recordings, WorkThatIsWrongEndsAsItWouldPlainly) {
  repeat_with(1);
  const auto wrong = [&] { backend_->add(in_, out_.row_range(0, 1), out_); };
  EXPECT_THROW(repeat(wrong), Error);
  EXPECT_THROW(repeat(wrong), Error);
  backend_->synchronize();
}

TEST(RecordingsOfTheCpu, AreTheWorkItself) {
  const auto backend = make_cpu_backend();
  Recording recording;
  int calls = 0;
  const std::array<WorkPart, 1> work = {WorkPart{[] {}, [&] { ++calls; }}};
  for (int i = 0; i < 3; ++i) backend->repeat(recording, {}, work);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(recording.repeats, 0);
}

}  // namespace
}  // namespace smlp::test
