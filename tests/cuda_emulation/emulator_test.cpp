// What the emulation must find: kernels with a mistake each.
#include "tests/cuda_emulation/emulator.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "tensor/backend.h"
#include "tests/cuda_emulation/streams.h"

namespace smlp::test {
namespace {

using emulation::Order;

template <class... Parameters, class... Arguments>
void start(dim3 blocks, unsigned threads, void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = {threads, 1, 1};
  ASSERT_EQ(cudaLaunchKernelEx(&config, kernel, arguments...), cudaSuccess);
}

std::string refusal(dim3 blocks, unsigned threads, void (*kernel)(float*), float* out) {
  try {
    start(blocks, threads, kernel, out);
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

void reverse(float* out) {
  SMLP_SHARED(float, tile, 64);
  tile[threadIdx.x] = out[blockIdx.x * 64 + threadIdx.x];
  __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}

void reverse_without_barrier(float* out) {
  SMLP_SHARED(float, tile, 64);
  tile[threadIdx.x] = out[blockIdx.x * 64 + threadIdx.x];
  out[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}

TEST(Emulator, ThreadsOfABlockMeetAtBarriers) {
  for (const Order order : {Order::forwards, Order::backwards, Order::shuffled}) {
    emulation::set_order(order);
    std::vector<float> out(128);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(i);
    start({2, 1, 1}, 64, reverse, out.data());
    for (std::size_t i = 0; i < 64; ++i) {
      EXPECT_EQ(out[i], 63 - static_cast<float>(i));
      EXPECT_EQ(out[64 + i], 127 - static_cast<float>(i));
    }
  }
  emulation::set_order(Order::changing);
}

TEST(Emulator, AMissingBarrierShowsInEveryOrder) {
  for (const Order order : {Order::forwards, Order::backwards, Order::shuffled}) {
    emulation::set_order(order);
    std::vector<float> out(64, 1);
    start({1, 1, 1}, 64, reverse_without_barrier, out.data());
    int missing = 0;
    for (const float value : out) missing += std::isnan(value) ? 1 : 0;
    EXPECT_GT(missing, 0) << "nobody had written yet what is read here";
  }
  emulation::set_order(Order::changing);
}

TEST(Emulator, BarriersThatNotAllThreadsReachAreRefused) {
  std::vector<float> out(64);
  const auto kernel = [](float*) {
    if (threadIdx.x < 10) return;
    __syncthreads();
  };
  EXPECT_NE(refusal({1, 1, 1}, 64, kernel, out.data()).find("54 wait at __syncthreads, and 10 have ended"),
            std::string::npos);
  start({1, 1, 1}, 64, reverse, out.data());  // and the next launch works
}

TEST(Emulator, CallsOfAWarpNeedTheirLanes) {
  std::vector<float> out(64);
  const auto sums = [](float* to) {
    float value = static_cast<float>(threadIdx.x);
    for (int with = 16; with > 0; with /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, with);
    to[threadIdx.x] = value;
    const unsigned odd = __ballot_sync(0xFFFFFFFFu, threadIdx.x % 2),
                   alike = __match_any_sync(0xFFFFFFFFu, threadIdx.x % 4);
    if (odd != 0xAAAAAAAAu || alike != 0x11111111u << threadIdx.x % 4) to[threadIdx.x] = NAN;
  };
  EXPECT_EQ(refusal({1, 1, 1}, 64, sums, out.data()), "nothing");
  EXPECT_EQ(out[5], 31 * 16);
  EXPECT_EQ(out[40], 31 * 16 + 32 * 32);
  const auto ended = [](float*) {
    if (threadIdx.x != 3) __syncwarp();
  };
  EXPECT_NE(refusal({1, 1, 1}, 32, ended, out.data()).find("lane 3, which has ended"), std::string::npos);
  const auto short_warp = [](float*) { __syncwarp(); };
  EXPECT_NE(refusal({1, 1, 1}, 40, short_warp, out.data()).find("there is no such thread"),
            std::string::npos);
  const auto outside = [](float*) {
    if (threadIdx.x < 16) __shfl_sync(0xFFFFu, 1.0f, 20);
  };
  EXPECT_NE(refusal({1, 1, 1}, 32, outside, out.data()).find("reads from lane 20"), std::string::npos);
}

TEST(EmulatorDeath, AnElementBeyondSharedMemoryIsSeen) {
  const auto kernel = [](float* out) {
    SMLP_SHARED(float, tile, 63);
    tile[threadIdx.x] = 1;
    out[0] = tile[0];
  };
  std::vector<float> out(1);
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(refusal({1, 1, 1}, 64, kernel, out.data()), "heap-buffer-overflow");
}

TEST(Emulator, LaunchesThatADeviceRefusesAreRefused) {
  cudaLaunchConfig_t config{};
  const auto kernel = [](int) {};
  config.blockDim = {1025, 1, 1};
  EXPECT_EQ(cudaLaunchKernelEx(&config, +kernel, 1), cudaErrorInvalidValue);
  config.blockDim = {32, 1, 1};
  config.gridDim = {1, 65536, 1};
  EXPECT_EQ(cudaLaunchKernelEx(&config, +kernel, 1), cudaErrorInvalidValue);
}

TEST(CudaDevices, AMachineWithoutADriverSaysSo) {
  emulation::set_devices(0);
  EXPECT_EQ(cuda_devices(), 0);
  std::string sentence;
  try {
    make_cuda_backend();
  } catch (const Error& error) {
    sentence = error.what();
    EXPECT_EQ(error.code(), ExitCode::unavailable);
  }
  EXPECT_NE(sentence.find("there is no GPU here"), std::string::npos) << sentence;
  emulation::set_devices(2);
  EXPECT_EQ(cuda_devices(), 2);
  EXPECT_THROW(make_cuda_backend({.device = 2}), Error);
  EXPECT_EQ(make_cuda_backend({.device = 1})->device_id(), "0000:11:00.0");
  emulation::set_devices(1);
}

// It was taken for none, and a job for GPUs was computed by the CPU.
TEST(CudaDevices, ADriverOlderThanTheToolkitIsNoMissingDriver) {
  emulation::set_devices(0);
  emulation::set_driver_version(12040);
  try {
    cuda_devices();
    ADD_FAILURE() << "there are none";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::unavailable);
    EXPECT_NE(std::string(error.what()).find("for CUDA 12.4 at most, and this smlp was built with CUDA 13.0"), std::string::npos)
        << error.what();
  }
  emulation::set_driver_version(0);
  emulation::set_devices(1);
}

TEST(CudaDevices, ADriverThatIsIllIsToldWithWhatMayHelp) {
  emulation::set_driver_error(cudaErrorSystemNotReady);
  try {
    make_cuda_backend();
    ADD_FAILURE() << "it was made";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::unavailable);
    EXPECT_NE(std::string(error.what()).find("fabric manager"), std::string::npos) << error.what();
  }
  emulation::set_driver_error(cudaSuccess);
}

// A kernel's fault may first show at the next allocation: final, as a lack of memory is, it would end the run for good.
TEST(CudaDevices, AFaultThatShowsWhenMemoryIsTakenIsNoLackOfMemory) {
  const auto backend = make_cuda_backend();
  emulation::set_driver_error(cudaErrorIllegalAddress);
  for (const bool pinned : {false, true}) {
    try {
      pinned ? backend->allocate_host(64) : backend->allocate(64);
      ADD_FAILURE() << "it was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::fault) << error.what();
    }
  }
  emulation::set_driver_error(cudaSuccess);
}

// Callers change what they gave to upload() as soon as it returns, where it is no pinned memory.
TEST(CudaDevices, AnUploadHasReadItsSourceAlsoWhereTheDeviceReadsTheHostsPages) {
  emulation::set_reads_host_pages(true);
  const auto backend = make_cuda_backend();
  for (const std::int64_t count : {1, 1000}) {
    const TensorView there(backend->allocate(8 * count), {count}, DType::f64);
    std::vector<double> values(static_cast<std::size_t>(count), 1), back(values.size());
    backend->upload(values.data(), there);
    values.assign(values.size(), 2);
    backend->download(there, back.data());
    EXPECT_EQ(back, std::vector<double>(back.size(), 1));
    backend->release(there.data);
  }
  emulation::set_reads_host_pages(false);
}

TEST(CudaDevices, MemoryThatIsNotThereIsAskedForInASentence) {
  const auto backend = make_cuda_backend();
  try {
    backend->allocate(std::int64_t{1} << 50);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the GPU has no 1125899906842624 bytes of memory left"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace smlp::test
