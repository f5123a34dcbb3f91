// Models of every kind take steps on the GPU, an emulated one or this machine's, as on the CPU; two ranks, staged, as they do over MPI, by NCCL
// as staged, and as one rank.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/cuda_emulation/small_model.h"

namespace smlp::test {
namespace {

struct Trained {
  std::vector<double> losses, norms;
};

Trained train(const JobConfig& job, Ranks ranks, std::unique_ptr<Backend> backend) {
  SmallRun run(job, ranks, std::move(backend));
  Trained trained;
  for (int step = 1; step <= 2; ++step) {
    const auto result = run.step();
    trained.losses.push_back(result.loss);
    trained.norms.push_back(result.gradient_norm);
  }
  return trained;
}

std::unique_ptr<Backend> gpu() { return make_cuda_backend({.device = test::world().rank() % cuda_devices()}); }
bool each_has_a_gpu() { return test::world().size() <= cuda_devices(); }

class Training : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Of, Training,
                         testing::Values("gmlp", "smlp", "transformer", "gshard", "switch", "base", "hash"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Training, TakesTheStepsOfTheCpu) {
  for (const auto& [precision, tolerance] : {std::pair{"f32", 2e-4}, {"bf16", 3e-2}, {"fp16", 4e-3}}) {
    const auto job = small_job(GetParam(), precision);
    const Trained wanted = train(job, Ranks::over_mpi, make_cpu_backend());
    const Trained got = train(job, Ranks::staged, gpu());
    EXPECT_LT(wanted.losses.back(), wanted.losses.front() + 1);
    for (std::size_t i = 0; i < wanted.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], wanted.losses[i], tolerance * wanted.losses[i])
          << precision << ", step " << i + 1;
      EXPECT_NEAR(got.norms[i], wanted.norms[i], 10 * tolerance * wanted.norms[i])
          << precision << ", step " << i + 1;
    }
    if (job.train.precision == "f32") continue;
    const Trained again = train(job, Ranks::staged, gpu());
    EXPECT_EQ(again.losses, got.losses) << "the same bits, in whatever order threads run";
    EXPECT_EQ(again.norms, got.norms);
  }
}

TEST_P(Training, OfTwoRanksByNcclIsThatOfOne) {
  if (!each_has_a_gpu()) GTEST_SKIP() << "NCCL wants a GPU for each rank";
  const auto job = small_job(GetParam(), "f32");
  const Trained got = train(job, Ranks::by_nccl, gpu());
  const Trained staged = train(job, Ranks::staged, gpu());
  EXPECT_EQ(got.losses, staged.losses) << "of two numbers there is one sum";
  EXPECT_EQ(got.norms, staged.norms);
  const Trained one = train(job, Ranks::one, gpu());
  for (std::size_t i = 0; i < one.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], one.losses[i], 2e-5 * one.losses[i]) << "step " << i + 1;
    EXPECT_NEAR(got.norms[i], one.norms[i], 2e-4 * one.norms[i]) << "step " << i + 1;
  }
}

// Staged, parts of sums and of values go through the host's memory; an update begins within a segment.
TEST(Shards, TrainAsWithoutThem) {
  for (const auto ranks : {Ranks::staged, Ranks::by_nccl}) {
    if (ranks == Ranks::by_nccl && !each_has_a_gpu()) continue;
    auto job = small_job("smlp", "bf16");
    job.optimizer.clip_norm = 0;  // the order of the norm's sum would show
    const Trained wanted = train(job, ranks, gpu());
    job.optimizer.shard_states = true;
    const Trained got = train(job, ranks, gpu());
    EXPECT_EQ(got.losses, wanted.losses);
    for (std::size_t i = 0; i < wanted.norms.size(); ++i) EXPECT_NEAR(got.norms[i], wanted.norms[i], 1e-9);
  }
}

}  // namespace
}  // namespace smlp::test
