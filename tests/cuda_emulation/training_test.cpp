// Models of every kind take steps on the emulated GPU as on the CPU, and two ranks, staged, as they do over
// MPI.
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
  job.cluster.ranks = test::world().size();
  return job;
}

struct Trained {
  std::vector<double> losses, norms;
};

Trained train(const JobConfig& job, std::unique_ptr<Backend> backend) {
  auto& world = test::world();
  auto group = world.split(0, world.rank());
  if (!backend->in_host_memory()) group = make_staged(std::move(group), *backend);
  Engine engine(job, std::move(backend), ProcessGrid::cut(std::move(group), world.size() == 2 ? 2 : 1), true);
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

class Training : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Of, Training,
                         testing::Values("gmlp", "smlp", "transformer", "gshard", "switch", "base", "hash"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Training, TakesTheStepsOfTheCpu) {
  for (const auto& [precision, tolerance] : {std::pair{"f32", 2e-4}, {"bf16", 3e-2}, {"fp16", 4e-3}}) {
    const auto job = small_job(GetParam(), precision);
    const Trained wanted = train(job, make_cpu_backend()), got = train(job, make_cuda_backend());
    EXPECT_LT(wanted.losses.back(), wanted.losses.front() + 1);
    for (std::size_t i = 0; i < wanted.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], wanted.losses[i], tolerance * wanted.losses[i])
          << precision << ", step " << i + 1;
      EXPECT_NEAR(got.norms[i], wanted.norms[i], 10 * tolerance * wanted.norms[i])
          << precision << ", step " << i + 1;
    }
    if (job.train.precision == "f32") continue;
    const Trained again = train(job, make_cuda_backend());
    EXPECT_EQ(again.losses, got.losses) << "the same bits, in whatever order threads run";
    EXPECT_EQ(again.norms, got.norms);
  }
}

// Parts of sums and of values go through the host's memory, and an update begins within a segment.
TEST(Shards, TrainAsWithoutThem) {
  auto job = small_job("smlp", "bf16");
  job.optimizer.clip_norm = 0;  // the order of the norm's sum would show
  const Trained wanted = train(job, make_cuda_backend());
  job.optimizer.shard_states = true;
  const Trained got = train(job, make_cuda_backend());
  EXPECT_EQ(got.losses, wanted.losses);
  for (std::size_t i = 0; i < wanted.norms.size(); ++i) EXPECT_NEAR(got.norms[i], wanted.norms[i], 1e-9);
}

}  // namespace
}  // namespace smlp
