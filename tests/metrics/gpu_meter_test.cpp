// A GPU's readings by a management library that stands in for NVIDIA's (LD_LIBRARY_PATH), alone and among a rank's metrics.
#include "metrics/gpu_meter.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "metrics/exporter.h"
#include "tests/metrics/http.h"

namespace smlp {
namespace {

constexpr const char* here = "0000:3B:00.0";

std::string scrape(const Exporter& exporter) { return test::get("http://" + exporter.address() + "/metrics").body; }

class GpuMeters : public testing::Test {
 protected:
  ~GpuMeters() override { unsetenv("FAKE_NVML"); }
  static void failing(const char* what) { setenv("FAKE_NVML", what, 1); }
};

TEST_F(GpuMeters, ReadTheGpuAtAPlaceOnTheBus) {
  const auto meter = GpuMeter::open(here);
  ASSERT_TRUE(meter);
  const auto reading = meter->read();
  EXPECT_EQ(reading.memory_bytes, 80.0 * (1 << 30));
  EXPECT_EQ(reading.memory_used_bytes, 30.0 * (1 << 30));
  EXPECT_EQ(reading.busy_share, 0.87);
  EXPECT_EQ(meter->read().power_watts, reading.power_watts.value() + 1);
}

TEST_F(GpuMeters, AreNotThereForAGpuThatTheLibraryDoesNotKnow) {
  std::string why_not;
  EXPECT_FALSE(GpuMeter::open("0000:01:00.0", &why_not));
  EXPECT_EQ(why_not, "libnvidia-ml.so.1 knows no GPU at 0000:01:00.0 (status 6)");
}

TEST_F(GpuMeters, AreNotThereWhereTheDriverIsNotLoaded) {
  failing("start");
  std::string why_not;
  EXPECT_FALSE(GpuMeter::open(here, &why_not));
  EXPECT_EQ(why_not, "libnvidia-ml.so.1 does not start (status 9)");
}

TEST_F(GpuMeters, LeaveTheLibraryAsTheyFoundIt) {
  void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  ASSERT_NE(library, nullptr);
  const auto users = reinterpret_cast<int (*)()>(dlsym(library, "fake_nvml_users"));
  {
    const auto meter = GpuMeter::open(here);
    EXPECT_EQ(users(), 1);
    EXPECT_FALSE(GpuMeter::open("0000:01:00.0"));
    EXPECT_EQ(users(), 1);
  }
  EXPECT_EQ(users(), 0);
  dlclose(library);
}

TEST_F(GpuMeters, ShowAmongARanksMetricsAsTheyAreWhenScraped) {
  const RunMetrics metrics({.rank = 3, .version = {}, .device = {}, .isa = {}});
  const Exporter exporter("127.0.0.1:0", metrics, GpuMeter::open(here));
  const auto first = scrape(exporter), second = scrape(exporter);
  EXPECT_NE(first.find("smlp_gpu_memory_used_bytes{rank=\"3\"} 32212254720"), std::string::npos) << first;
  EXPECT_NE(first.find("smlp_gpu_memory_bytes{rank=\"3\"} 85899345920"), std::string::npos);
  EXPECT_NE(first.find("smlp_gpu_busy_share{rank=\"3\"} 0.87"), std::string::npos);
  EXPECT_NE(first.find("smlp_step{rank=\"3\"} 0"), std::string::npos);
  const auto power = [](const std::string& text) { return text.substr(text.find("smlp_gpu_power_watts{"), 40); };
  EXPECT_NE(power(first), power(second)) << "read anew for every scrape";
}

TEST_F(GpuMeters, LeaveOutWhatTheirGpuDoesNotTell) {
  failing("power utilization");
  const RunMetrics metrics({.rank = 0, .version = {}, .device = {}, .isa = {}});
  const Exporter exporter("127.0.0.1:0", metrics, GpuMeter::open(here));
  const auto text = scrape(exporter);
  EXPECT_NE(text.find("smlp_gpu_memory_bytes"), std::string::npos);
  EXPECT_EQ(text.find("smlp_gpu_power_watts"), std::string::npos);
  EXPECT_EQ(text.find("smlp_gpu_busy_share"), std::string::npos);
}

}  // namespace
}  // namespace smlp
