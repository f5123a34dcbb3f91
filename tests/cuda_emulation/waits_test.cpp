// How often the host stands still for the device in a step.
#include <gtest/gtest.h>

#include "tests/cuda_emulation/small_model.h"
#include "tests/cuda_emulation/streams.h"

namespace smlp::test {
namespace {

class Waits : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Of, Waits, testing::Values("gmlp", "transformer", "switch", "gshard"),
                         [](const auto& info) { return std::string(info.param); });

// Assignment in balance, hash tables and gates without a capacity ask the device of each micro-batch; these do not.
TEST_P(Waits, OfAStepDoNotGrowWithItsMicroBatches) {
  std::int64_t waits[2];
  for (const bool many : {false, true}) {
    auto job = small_job(GetParam(), "f32");
    job.train.global_batch = many ? 12 : 4;
    job.cluster.cuda_graphs = "off";
    SmallRun run(job, Ranks::one, make_cuda_backend());
    for (int step = 0; step < 2; ++step) run.step();
    const std::int64_t before = emulation::waits();
    run.step();
    waits[many] = emulation::waits() - before;
  }
  EXPECT_EQ(waits[1], waits[0]);
  EXPECT_LE(waits[0], 2) << "for the gradient's norm, and for what was added up";
}

}  // namespace
}  // namespace smlp::test
