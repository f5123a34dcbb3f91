// The sizes at which a machine is measured, on devices whose speed and memory are known.
#include "worker/machine_limits.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tensor/counting.h"

namespace smlp {
namespace {

class SteadyDevice final : public CountingBackend {
 public:
  SteadyDevice(double multiply_adds_per_second, std::int64_t memory) : rate_(multiply_adds_per_second), memory_(memory) {}
  void* allocate(std::int64_t bytes) override {
    if (bytes > memory_) throw Error(ExitCode::unavailable, "the device has no memory left");
    return CountingBackend::allocate(bytes);
  }
  double timed(const std::function<void()>& work) override {
    const auto before = multiply_adds().executed;
    work();
    return static_cast<double>(multiply_adds().executed - before) / rate_;
  }

 private:
  double rate_;
  std::int64_t memory_;
};

constexpr std::int64_t gibibyte = std::int64_t{1} << 30;

TEST(MachineLimits, AProcessorShowsThemAtTheLeastSize) {
  SteadyDevice processor(1e11, gibibyte);
  EXPECT_EQ(telling_product(processor, DType::f32), 1024);
  EXPECT_NEAR(product_rate(processor, DType::f32), 2e11, 1);
  EXPECT_EQ(processor.bytes_now(), 0);
}

TEST(MachineLimits, ADeviceShowsThemWhereOneCallTakesAMillisecond) {
  SteadyDevice device(4e14, gibibyte);
  EXPECT_EQ(telling_product(device, DType::bf16), 8192) << "4096³ takes 0.17 ms there";
  EXPECT_NEAR(product_rate(device, DType::bf16), 8e14, 1e3);
  EXPECT_EQ(device.bytes_now(), 0);
}

TEST(MachineLimits, ADeviceThatHasNoMemoryForMoreIsMeasuredWithLess) {
  SteadyDevice device(4e14, std::int64_t{3} * 4096 * 4096 * 2);
  EXPECT_EQ(telling_product(device, DType::bf16), 4096);
  EXPECT_NEAR(product_rate(device, DType::bf16), 8e14, 1e3);
  EXPECT_EQ(device.bytes_now(), 0);
}

TEST(MachineLimits, TheSearchEnds) {
  SteadyDevice device(1e30, std::int64_t{1} << 50);
  EXPECT_EQ(telling_product(device, DType::bf16), 16384);
}

}  // namespace
}  // namespace smlp
