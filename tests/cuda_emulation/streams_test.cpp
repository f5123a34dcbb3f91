// What the emulation must find of streams: copies beside other work that nobody waits for, or that wait for nobody; and
// the time of a device that it invents.
#include "tests/cuda_emulation/streams.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>

#include "tensor/backend.h"
#include "tests/cuda_emulation/emulator.h"

namespace smlp::test {
namespace {

using Words = std::array<unsigned, 4>;
constexpr Words old_words = {1, 2, 3, 4};

class Streams : public testing::Test {
 protected:
  Streams() {
    for (auto* stream : {&computing_, &copying_}) cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
    for (auto* event : {&computed_, &copied_}) cudaEventCreateWithFlags(event, cudaEventDisableTiming);
    void* memory = nullptr;
    cudaMalloc(&memory, sizeof(Words));
    device_ = static_cast<Words*>(memory);
    cudaHostAlloc(&memory, sizeof(Words), cudaHostAllocDefault);
    host_ = static_cast<Words*>(memory);
    cudaMemcpyAsync(device_, old_words.data(), sizeof(Words), cudaMemcpyHostToDevice, computing_);
  }
  ~Streams() override {
    for (const auto stream : {computing_, copying_}) cudaStreamSynchronize(stream);
    cudaFreeHost(host_);
    cudaFree(device_);
    for (const auto event : {computed_, copied_}) cudaEventDestroy(event);
    for (const auto stream : {computing_, copying_}) cudaStreamDestroy(stream);
  }
  void start_copy(bool behind = true) {
    cudaEventRecord(computed_, computing_);
    if (behind) cudaStreamWaitEvent(copying_, computed_, 0);
    cudaMemcpyAsync(host_, device_, sizeof(Words), cudaMemcpyDeviceToHost, copying_);
    cudaEventRecord(copied_, copying_);
  }
  void overwrite() { cudaMemsetAsync(device_, 0, sizeof(Words), computing_); }
  Words copied() {
    cudaEventSynchronize(copied_);
    return *host_;
  }

  cudaStream_t computing_ = nullptr, copying_ = nullptr;
  cudaEvent_t computed_ = nullptr, copied_ = nullptr;
  Words *device_ = nullptr, *host_ = nullptr;
};
using StreamsDeath = Streams;

TEST_F(Streams, ACopyThatWorkIsPutBehindBringsWhatWasThere) {
  start_copy();
  cudaStreamWaitEvent(computing_, copied_, 0);
  overwrite();
  EXPECT_EQ(copied(), old_words);
}

TEST_F(Streams, ACopyThatNoWorkWaitsForBringsWhatCameLater) {
  start_copy();
  overwrite();
  EXPECT_EQ(copied(), Words{});
}

TEST_F(Streams, ACopyThatWaitsForNothingBringsNothing) {
  start_copy(false);
  const auto nothing = ~0u;
  EXPECT_EQ(copied(), (Words{nothing, nothing, nothing, nothing}));
}

TEST_F(Streams, ASlowCopyEndsWhereItsDeviceHasOtherWorkBehindIt) {
  emulation::set_slow_downloads(true);
  start_copy();
  cudaStreamWaitEvent(computing_, copied_, 0);
  overwrite();
  EXPECT_EQ(copied(), old_words) << "or the host would wait for ever";
  emulation::set_slow_downloads(false);
}

TEST_F(Streams, EventsArePassedWhenTheHostHasWaited) {
  start_copy();
  EXPECT_EQ(cudaEventQuery(copied_), cudaErrorNotReady);
  cudaStreamSynchronize(copying_);
  EXPECT_EQ(cudaEventQuery(copied_), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(computed_), cudaSuccess) << "the copies' stream waited for it";
}

TEST_F(StreamsDeath, WhatACopyMayStillWriteIsNotReadNorFreed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        start_copy();
        std::exit((*host_)[0] == 1 ? 0 : 1);
      },
      "use-after-poison");
  EXPECT_DEATH(
      {
        start_copy();
        cudaFreeHost(host_);
      },
      "freed while the device may still copy");
}

// The clock of phases by a device's own time, in which one piece of work takes a second.
TEST(DeviceClock, TellsWhatTheHostHasWaitedForAndTheRestLater) {
  emulation::set_clock(1, 0);
  {
    const auto backend = make_cuda_backend();
    auto& clock = backend->phase_clock();
    const TensorView view(backend->allocate(64), {16}, DType::f32);
    const auto work = [&](int times) {
      for (int i = 0; i < times; ++i) backend->fill(view, 1);
    };
    work(5);
    clock.enter(Phase::forward);
    work(3);
    {
      const PhaseScope scope(clock, Phase::exchange);
      work(2);
    }
    work(1);
    EXPECT_EQ(clock.take().total(), 0) << "the device may not have come so far";
    backend->synchronize();
    clock.enter(Phase::backward);
    work(4);
    clock.enter(Phase::outside);
    work(7);
    PhaseSeconds told = clock.take();
    EXPECT_EQ(told[Phase::forward], 4);
    EXPECT_EQ(told[Phase::exchange], 2);
    EXPECT_EQ(told[Phase::backward], 0);
    clock.enter(Phase::other);
    work(1);
    backend->synchronize();
    told = clock.take();
    EXPECT_EQ(told[Phase::backward], 4);
    EXPECT_EQ(told.total(), 4) << "what comes between steps is of none, and a phase that goes on is told when it ends";
    clock.enter(Phase::outside);
    backend->synchronize();
    EXPECT_EQ(clock.take()[Phase::other], 1);
    backend->release(view.data);
  }
  emulation::set_clock(0, 0);
}

}  // namespace
}  // namespace smlp::test
