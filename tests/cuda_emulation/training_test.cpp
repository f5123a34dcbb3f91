// Models of every kind take steps on the GPU, an emulated one or this machine's, as on the CPU; two ranks, staged, as they do over MPI, by NCCL
// as staged, and as one rank.
#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "tests/comm/ranks.h"
#include "worker/engine.h"

namespace smlp {
namespace {

JobConfig small_job(const std::string& kind, const std::string& precision) {
  JobConfig job;
  job.model.kind = kind;
  if (kind == "hash" || kind == "switch" || kind == "gshard") job.routing.tokens = kind;
  job.model.context = 8;
  job.model.width = job.model.hidden = 16;
  job.model.heads = 2;
  job.model.dense_blocks = 1;
  job.model.sparse_blocks = kind == "gmlp" || kind == "transformer" ? 0 : 1;
  job.model.experts = 4;
  job.model.vocabulary = 64;
  job.model.dropout = 0.1;
  job.train.precision = precision;
  job.train.micro_batch = job.routing.group_sequences = 2;
  job.train.global_batch = 4;
  return job;
}

struct Trained {
  std::vector<double> losses, norms;
};

enum class Ranks { one, over_mpi, staged, by_nccl };

std::unique_ptr<Communicator> join(Ranks ranks, Backend& backend) {
  if (ranks == Ranks::one) return make_solo(backend);
  auto group = test::world().split(0, test::world().rank());
  if (ranks == Ranks::staged) return make_staged(std::move(group), backend);
  return ranks == Ranks::by_nccl ? make_nccl(std::move(group), backend) : std::move(group);
}

Trained train(JobConfig job, Ranks ranks, std::unique_ptr<Backend> backend) {
  auto group = join(ranks, *backend);
  job.cluster.ranks = group->size();
  Engine engine(job, std::move(backend), ProcessGrid::cut(std::move(group), static_cast<int>(job.cluster.ranks)), true);
  std::vector<std::int32_t> tokens, targets;
  const RandomStream random(3, "tokens");
  const ReadBatch read = [&](std::int64_t position, std::int64_t count, std::int64_t, const std::int32_t*& in,
                             const std::int32_t*& wanted) {
    tokens.clear();
    for (std::int64_t i = 0; i < count * job.model.context; ++i) {
      const auto place = static_cast<std::uint64_t>(position * job.model.context + i);
      tokens.push_back(static_cast<std::int32_t>(random.bits(place) % 64));
    }
    targets = tokens;
    in = tokens.data();
    wanted = targets.data();
  };
  Trained trained;
  for (std::int64_t step = 1; step <= 2; ++step) {
    std::vector<double> flags;
    const auto result = engine.train_step(step, (step - 1) * job.train.global_batch, read, flags, [] {});
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
}  // namespace smlp
