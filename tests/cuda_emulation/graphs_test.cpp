// Training on a device that refuses graphs.
#include <gtest/gtest.h>

#include "tests/cuda_emulation/small_model.h"
#include "tests/cuda_emulation/streams.h"

namespace smlp::test {
namespace {

TEST(RefusedGraphs, LeaveTheStepsAsTheyAre) {
  std::vector<double> losses[2];
  for (const bool refused : {false, true}) {
    auto job = small_job("gmlp", "f32");
    job.train.global_batch = test::world().size() == 1 ? 6 : 8;
    job.cluster.cuda_graphs = refused ? "auto" : "off";
    SmallRun run(job, Ranks::staged, make_cuda_backend());
    if (refused) emulation::refuse_graph(cudaErrorMemoryAllocation);
    for (int step = 0; step < 3; ++step) losses[refused].push_back(run.step().loss);
    emulation::refuse_graph(cudaSuccess);
    EXPECT_EQ(run.engine().recording().repeats, 0);
    EXPECT_EQ(run.engine().recording().refusal.empty(), !refused);
  }
  EXPECT_EQ(losses[0], losses[1]);
}

}  // namespace
}  // namespace smlp::test
