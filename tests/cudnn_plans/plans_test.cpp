// cuDNN itself says which attention it takes, and compiles the kernels, for GPUs that are described to it and need not be here
// (its compilation ahead of time). What the kernels compute is seen on a GPU alone (tests/cuda_device).
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "core/error.h"
#include "tensor/cuda/cudnn.h"

namespace smlp::cuda {
namespace {

struct Gpu {
  const char* name;
  int capability, multiprocessors, shared_memory;  // shared_memory: bytes that a block may ask for
};
constexpr Gpu v100{"V100", 70, 80, 98304}, a100{"A100", 80, 108, 166912}, h200{"H200", 90, 132, 232448};

void PrintTo(const Gpu& gpu, std::ostream* out) { *out << gpu.name; }

// In cuDNN's words. Memory, caches and clocks steer its choices, and refuse nothing.
std::string properties(const Gpu& gpu) {
  return fmt::format(
      R"({{"deviceName": "{}", "deviceVer": {}, "driverVer": {}, "cudaDeviceId": 0, "pciDeviceId": 0,
           "multiProcessorCount": {}, "maxSharedMemoryPerBlockOptin": {}, "maxSharedMemoryPerBlock": 49152,
           "reservedSharedMemoryPerBlock": 1024, "regsPerBlock": 65536, "maxRegistersPerSM": 65536, "warpSize": 32,
           "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "maxCtasPerSM": 32,
           "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "isTccDriver": 0,
           "supportCoopLaunch": 1, "smClockRateKHz": 1500000, "memClockRateKHz": 2000000, "l2CacheSize": 41943040,
           "totalGlobalMem": 34359738368}})",
      gpu.name, gpu.capability * 10, CUDART_VERSION, gpu.multiprocessors, gpu.shared_memory);
}

struct Sizes {
  std::int64_t sequences = 2, heads = 4, length = 128, width = 64;
};

// As layers/ call it: heads are slices of rows, and queries, keys and values of the rows of one product.
FlashCall call_of(const Sizes& s, DType type, bool backward) {
  static std::byte memory[16];  // stands for all tensors
  const std::int64_t row = s.heads * s.width;
  const HeadTensor one{memory, s.length * row, s.width, row}, of_three{memory, s.length * 3 * row, s.width, 3 * row};
  FlashCall call{.type = type,
                 .sequences = s.sequences,
                 .heads = s.heads,
                 .length = s.length,
                 .width = s.width,
                 .scale = 0.125f,
                 .query = of_three,
                 .key = of_three,
                 .value = of_three,
                 .out = one,
                 .log_sum = reinterpret_cast<float*>(memory)};
  if (backward) {
    call.dout = one;
    call.dquery = call.dkey = call.dvalue = of_three;
  }
  return call;
}

class CudnnPlans : public testing::TestWithParam<Gpu> {
 protected:
  static void SetUpTestSuite() {
    try {
      open_cudnn();
    } catch (const Error& error) {
      missing = error.what();
    }
  }
  void SetUp() override {
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  static std::int64_t plan(const FlashCall& call) {
    return planned_workspace(call, {GetParam().capability, properties(GetParam())});
  }

  static std::string refusal(const FlashCall& call) {
    try {
      plan(call);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

 private:
  static inline std::string missing;
};

using OnGpusThatHaveIt = CudnnPlans;

TEST_P(OnGpusThatHaveIt, HeadsUpTo128ChannelsAreTaken) {
  for (const auto& [type, width] : {std::pair{DType::bf16, 8}, {DType::bf16, 24}, {DType::bf16, 128}, {DType::f16, 64}}) {
    for (const bool backward : {false, true})
      EXPECT_EQ(refusal(call_of({.width = width}, type, backward)), "") << name_of(type) << width << backward;
  }
}

TEST_P(OnGpusThatHaveIt, HeadsOf256ChannelsAreTakenByHoppersAlone) {
  const std::string backward = refusal(call_of({.width = 256}, DType::bf16, true));
  if (GetParam().capability >= 90) {
    EXPECT_EQ(backward, "");
    EXPECT_EQ(refusal(call_of({.width = 256}, DType::bf16, false)), "");
  } else {
    EXPECT_THAT(backward, testing::HasSubstr("less than or equal to 128"));
  }
}

TEST_P(OnGpusThatHaveIt, SequencesOfAnyLengthAreTaken) {
  for (const std::int64_t length : {2, 7, 129}) {
    for (const bool backward : {false, true})
      EXPECT_EQ(refusal(call_of({.length = length}, DType::bf16, backward)), "") << length << backward;
  }
}

// What most_workspace_bytes of flash_attention.cpp counts on.
TEST_P(OnGpusThatHaveIt, TheWorkspaceIsTwoBytesAPairOfTokensAndHeadAtMost) {
  for (const Sizes& s : {Sizes{.sequences = 8, .heads = 12, .length = 1024}, Sizes{.sequences = 1, .heads = 1, .length = 384}}) {
    const std::int64_t rows = s.sequences * s.heads * s.length, spare = 4096;
    EXPECT_LE(plan(call_of(s, DType::bf16, true)), 2 * rows * s.length + 8 * rows + spare);
    EXPECT_LE(plan(call_of(s, DType::bf16, false)), spare);
  }
}

// Which is why they are faster: two f32 an element of the queries at most, for their gradient.
TEST_P(OnGpusThatHaveIt, SumsInAnyOrderKeepNoSquares) {
  const Sizes s{.sequences = 16, .heads = 16, .length = 1024};
  const std::int64_t rows = s.sequences * s.heads * s.length, squares = 2 * rows * s.length, spare = 4096;
  FlashCall call = call_of(s, DType::bf16, true);
  EXPECT_GE(plan(call), squares);
  call.deterministic = false;
  EXPECT_LE(plan(call), 8 * rows * s.width + 8 * rows + spare);
}

TEST_P(OnGpusThatHaveIt, PartsOfCallsAreTaken) {
  const Sizes whole{.sequences = 6, .heads = 8, .length = 256};
  for (const bool backward : {false, true}) {
    const FlashCall call = call_of(whole, DType::bf16, backward);
    EXPECT_EQ(refusal(call.part(2, 0, 3, whole.heads)), "") << "some sequences";
    EXPECT_EQ(refusal(call.part(5, 2, 1, 2)), "") << "some heads of one";
  }
}

INSTANTIATE_TEST_SUITE_P(, OnGpusThatHaveIt, testing::Values(a100, h200), testing::PrintToStringParamName());

using OnOthers = CudnnPlans;

TEST_P(OnOthers, ProductsComputeIt) {
  EXPECT_THAT(refusal(call_of({}, DType::f16, false)), testing::HasSubstr("requires SM80"));
  EXPECT_NE(refusal(call_of({}, DType::f16, true)), "");
}

INSTANTIATE_TEST_SUITE_P(, OnOthers, testing::Values(v100), testing::PrintToStringParamName());

}  // namespace
}  // namespace smlp::cuda
