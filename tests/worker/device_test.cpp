// Which device a rank takes, by the job, the GPUs that its process sees and its number on its host.
#include "worker/device.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/features.h"

namespace smlp {
namespace {

std::optional<int> gpu(const std::string& device, int gpus, std::int64_t local_rank,
                       const std::string& precision = "f32") {
  JobConfig job;
  job.cluster.device = device;
  job.train.precision = precision;
  return gpu_of(job, gpus, local_rank);
}

TEST(Device, RanksOfAHostTakeTheGpusThatTheySeeInTurns) {
  EXPECT_EQ(gpu("auto", 4, 2), 2);
  EXPECT_EQ(gpu("cuda", 4, 6), 2);
  EXPECT_EQ(gpu("cuda", 1, 3), 0) << "SLURM showed this rank its own";
}

TEST(Device, AutoFallsBackToTheCpu) {
  EXPECT_EQ(gpu("auto", 0, 0), std::nullopt);
  EXPECT_EQ(gpu("auto", 2, 0, "f64"), std::nullopt) << "f64 is for checks";
  EXPECT_EQ(gpu("cpu", 2, 0), std::nullopt);
  EXPECT_EQ(gpu("cuda", 0, 1), 0) << "asked for: the backend says what is missing";
}

TEST(Device, HasAName) {
  EXPECT_EQ(device_name(std::nullopt), "cpu");
  EXPECT_EQ(device_name(3), "cuda:3");
}

TEST(Device, ABuildWithoutCudaSaysSo) {
  if (built_with_cuda()) GTEST_SKIP() << "this one has it";
  EXPECT_EQ(cuda_devices(), 0);
  try {
    make_cuda_backend();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::unavailable);
    EXPECT_NE(std::string(error.what()).find("built without CUDA"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace smlp
