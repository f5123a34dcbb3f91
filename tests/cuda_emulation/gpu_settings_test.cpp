// Training by each value of what a job says of its GPUs.
#include <gtest/gtest.h>

#include <map>

#include "core/error.h"
#include "tests/cuda_emulation/emulator.h"
#include "tests/cuda_emulation/flash_library.h"
#include "tests/cuda_emulation/small_model.h"
#include "tests/cuda_emulation/streams.h"
#include "worker/device.h"

namespace smlp::test {
namespace {

TEST(ProductEnds, AreTheJobs) {
  EXPECT_EQ(JobConfig().cluster.product_ends, "own_bias_gradient");
  std::map<std::string, std::int64_t> ended;  // by the library
  std::vector<double> wanted;
  for (const std::string ends : {"library", "own_bias_gradient", "own_gelu", "own"}) {
    auto job = small_job("transformer", "bf16");
    job.cluster.device = "cuda";
    job.cluster.product_ends = ends;
    const std::int64_t before = emulation::products_with_ends();
    SmallRun run(job, Ranks::one, make_backend(job));
    std::vector<double> losses;
    for (int step = 0; step < 3; ++step) losses.push_back(run.step().loss);
    ended[ends] = emulation::products_with_ends() - before;
    if (wanted.empty()) wanted = losses;
    for (std::size_t step = 0; step < losses.size(); ++step) EXPECT_NEAR(losses[step], wanted[step], 0.02) << ends << step;
  }
  EXPECT_GT(ended["library"], ended["own_bias_gradient"]);
  EXPECT_GT(ended["own_bias_gradient"], ended["own_gelu"]);
  EXPECT_GT(ended["own_gelu"], 0);
  EXPECT_EQ(ended["own"], 0);
}

// Its products were done by a thread a number, or not at all, without a word of why.
TEST(Precision, OfTheJobIsOneThatTheGpuComputesIn) {
  auto job = small_job("gmlp", "bf16");
  job.cluster.device = "cuda";
  emulation::set_capability(70);
  try {
    make_backend(job);
    ADD_FAILURE() << "goes on";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    const std::string words = error.what();
    EXPECT_NE(words.find("capability 8.0 or later (Ampere), and GPU 0 has 7.0: take \"fp16\""), std::string::npos) << words;
  }
  job.train.precision = "fp16";
  EXPECT_NO_THROW(make_backend(job));
  emulation::set_capability(90);
  job.train.precision = "bf16";
  EXPECT_NO_THROW(make_backend(job));
}

TEST(Attention, AddsUpInAnyOrderOnlyWhereTheJobLetsIt) {
  EXPECT_TRUE(JobConfig().cluster.deterministic);
  for (const bool deterministic : {true, false}) {
    emulation::flash_rules() = {};
    int asked = 0;
    emulation::flash_rules().declines = [&](const cuda::FlashCall& call) {
      asked += call.backward() && call.deterministic == deterministic;
      return std::string();
    };
    auto job = small_job("transformer", "bf16");
    job.cluster.device = "cuda";
    job.cluster.deterministic = deterministic;
    SmallRun(job, Ranks::one, make_backend(job)).step();
    EXPECT_GT(asked, 0) << deterministic;
    emulation::flash_rules() = {};
  }
}

}  // namespace
}  // namespace smlp::test
