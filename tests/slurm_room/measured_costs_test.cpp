#include "slurm/measured_costs.h"

#include <gmock/gmock.h>

#include "fake_programs.h"

namespace smlp {
namespace {

class MeasuredCostsOfARun : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-costs-XXXXXX";
    run.root = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(run.root); }
  RunDirectory run;
};

TEST_F(MeasuredCostsOfARun, AreUnknownBeforeItBegins) {
  const auto costs = measured_costs(run);
  EXPECT_FALSE(costs.step_seconds);
  EXPECT_FALSE(costs.save_seconds);
  EXPECT_EQ(warning_seconds(120, costs), 120);
  EXPECT_EQ(warning_seconds(5, costs), 5);
}

TEST_F(MeasuredCostsOfARun, AreTheMedianStepAndTheLongestNewSave) {
  std::ofstream metrics(run.metrics()), events(run.events());
  for (int i = 0; i < 300; ++i) metrics << "{\"step\":" << i << ",\"step_seconds\":" << (i < 99 ? 1000 : i == 150 ? 500 : 2.5) << "}\n";
  metrics << "{\"step\":300,\"step_sec";  // torn
  events << "{\"event\":\"checkpoint_published\",\"seconds\":900}\n";
  for (int i = 0; i < 10; ++i) events << "{\"event\":\"checkpoint_published\",\"seconds\":" << (i == 3 ? 40.25 : 10) << "}\n";
  events << "{\"event\":\"restart\",\"seconds\":7000}\n{\"event\":\"checkpoint_published\",\"seconds\":\"many\"}\n";
  metrics.close();
  events.close();
  const auto costs = measured_costs(run);
  EXPECT_EQ(costs.step_seconds, 2.5);
  EXPECT_EQ(costs.save_seconds, 40.25);
  EXPECT_EQ(warning_seconds(120, costs), 159) << "30 + 3 x 42.75, rounded up";
  EXPECT_EQ(warning_seconds(200, costs), 200);
}

TEST_F(MeasuredCostsOfARun, NeverAskForMoreWarningThanSbatchGives) {
  EXPECT_EQ(warning_seconds(120, {.step_seconds = 1e9, .save_seconds = 1e300}), 65535);
  EXPECT_EQ(warning_seconds(120, {.step_seconds = 40, .save_seconds = std::nullopt}), 150);
}

}  // namespace
}  // namespace smlp
