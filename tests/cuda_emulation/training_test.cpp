// Models of every kind take steps on the emulated GPU as on the CPU; two ranks, staged, as they do over MPI, by NCCL
// as staged, and as one rank.
#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "tests/comm/ranks.h"
#include "tests/cuda_emulation/streams.h"
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
  std::vector<double> losses, norms, evaluated;
  std::vector<std::byte> weights;  // after the last step
  std::int64_t repeats = 0;        // micro-batches that the device was handed as a graph
  std::string refusal;
};

enum class Ranks { one, over_mpi, staged, by_nccl };

std::unique_ptr<Communicator> join(Ranks ranks, Backend& backend) {
  if (ranks == Ranks::one) return make_solo(backend);
  auto group = test::world().split(0, test::world().rank());
  if (ranks == Ranks::staged) return make_staged(std::move(group), backend);
  return ranks == Ranks::by_nccl ? make_nccl(std::move(group), backend) : std::move(group);
}

// Loss of sequences that are not trained on.
double evaluate(Engine& engine, const JobConfig& job, std::int64_t sequences) {
  auto& backend = engine.backend();
  auto& arena = engine.arena();
  arena.reset();
  Context c{.backend = backend, .scratch = arena, .mode = Mode::evaluation, .sequences = sequences, .length = job.model.context};
  c.tokens = arena.take({c.rows()}, DType::i32);
  c.targets = arena.take({c.rows()}, DType::i32);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(c.rows()));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * 7 % 64);
  backend.upload(tokens.data(), c.tokens);
  backend.upload(tokens.data(), c.targets);
  const auto row_loss = arena.take({c.rows()}, DType::f64), total = arena.take({1}, DType::f64);
  backend.fill(total, 0);
  engine.model().forward_loss(c, row_loss);
  backend.sum(row_loss, total);
  double sum = 0;
  backend.download(total, &sum);
  return sum;
}

Trained train(JobConfig job, Ranks ranks, std::unique_ptr<Backend> backend, std::int64_t steps = 2, bool evaluates = false) {
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
  for (std::int64_t step = 1; step <= steps; ++step) {
    std::vector<double> flags;
    const auto result = engine.train_step(step, (step - 1) * job.train.global_batch, read, flags, [] {});
    trained.losses.push_back(result.loss);
    trained.norms.push_back(result.gradient_norm);
    if (evaluates && step % 3 == 0) trained.evaluated.push_back(evaluate(engine, job, 4 * step));  // memory grows each time
  }
  for (const auto& segment : engine.store().segments()) {
    std::vector<std::byte> values(static_cast<std::size_t>(segment.value.bytes()));
    engine.backend().download(segment.value, values.data());
    trained.weights.insert(trained.weights.end(), values.begin(), values.end());
  }
  trained.repeats = engine.recording().repeats;
  trained.refusal = engine.recording().refusal;
  return trained;
}

class Training : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Of, Training,
                         testing::Values("gmlp", "smlp", "transformer", "gshard", "switch", "base", "hash"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Training, TakesTheStepsOfTheCpu) {
  for (const auto& [precision, tolerance] : {std::pair{"f32", 2e-4}, {"bf16", 3e-2}, {"fp16", 4e-3}}) {
    const auto job = small_job(GetParam(), precision);
    const Trained wanted = train(job, Ranks::over_mpi, make_cpu_backend());
    const Trained got = train(job, Ranks::staged, make_cuda_backend());
    EXPECT_LT(wanted.losses.back(), wanted.losses.front() + 1);
    for (std::size_t i = 0; i < wanted.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], wanted.losses[i], tolerance * wanted.losses[i])
          << precision << ", step " << i + 1;
      EXPECT_NEAR(got.norms[i], wanted.norms[i], 10 * tolerance * wanted.norms[i])
          << precision << ", step " << i + 1;
    }
    if (job.train.precision == "f32") continue;
    const Trained again = train(job, Ranks::staged, make_cuda_backend());
    EXPECT_EQ(again.losses, got.losses) << "the same bits, in whatever order threads run";
    EXPECT_EQ(again.norms, got.norms);
  }
}

TEST_P(Training, OfTwoRanksByNcclIsThatOfOne) {
  const auto job = small_job(GetParam(), "f32");
  const Trained got = train(job, Ranks::by_nccl, make_cuda_backend());
  const Trained staged = train(job, Ranks::staged, make_cuda_backend());
  EXPECT_EQ(got.losses, staged.losses) << "of two numbers there is one sum";
  EXPECT_EQ(got.norms, staged.norms);
  const Trained one = train(job, Ranks::one, make_cuda_backend());
  for (std::size_t i = 0; i < one.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], one.losses[i], 2e-5 * one.losses[i]) << "step " << i + 1;
    EXPECT_NEAR(got.norms[i], one.norms[i], 2e-4 * one.norms[i]) << "step " << i + 1;
  }
}

void expect_the_same_bits(const Trained& got, const Trained& wanted) {
  EXPECT_EQ(got.losses, wanted.losses);
  EXPECT_EQ(got.norms, wanted.norms);
  EXPECT_EQ(got.evaluated, wanted.evaluated);
  EXPECT_EQ(got.weights, wanted.weights);
}

class Repeated : public testing::TestWithParam<const char*> {
 protected:
  // Three micro-batches a step of one rank, two of two; the learning rate and fp16's loss scale change all the time.
  JobConfig job(const std::string& precision, const char* graphs) const {
    auto job = small_job(GetParam(), precision);
    job.train.global_batch = test::world().size() == 1 ? 6 : 8;
    job.train.loss_scale_window = 2;
    job.schedule.warmup_steps = 4;
    job.model.dropout = 0;
    job.cluster.cuda_graphs = graphs;
    return job;
  }
};
INSTANTIATE_TEST_SUITE_P(Of, Repeated, testing::Values("gmlp", "transformer"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Repeated, StepsHaveTheBitsOfCallsOneByOne) {
  for (const char* precision : {"f32", "fp16"}) {
    SCOPED_TRACE(precision);
    const Trained wanted = train(job(precision, "off"), Ranks::by_nccl, make_cuda_backend(), 6, true);
    const Trained got = train(job(precision, "auto"), Ranks::by_nccl, make_cuda_backend(), 6, true);
    expect_the_same_bits(got, wanted);
    EXPECT_EQ(wanted.repeats, 0);
    EXPECT_GT(got.repeats, 0);
    EXPECT_EQ(got.refusal, "");
  }
}

TEST_P(Repeated, MasksOfDropoutAreDrawnAnew) {
  auto dropping = job("f32", "off");
  dropping.model.dropout = 0.1;
  const Trained wanted = train(dropping, Ranks::staged, make_cuda_backend(), 4);
  dropping.cluster.cuda_graphs = "auto";
  const Trained got = train(dropping, Ranks::staged, make_cuda_backend(), 4);
  expect_the_same_bits(got, wanted);
  EXPECT_GT(got.repeats, 0);
}

TEST_P(Repeated, ADeviceThatRefusesGraphsTrainsAllTheSame) {
  const Trained wanted = train(job("f32", "off"), Ranks::staged, make_cuda_backend());
  emulation::refuse_graph(cudaErrorMemoryAllocation);
  const Trained got = train(job("f32", "auto"), Ranks::staged, make_cuda_backend());
  emulation::refuse_graph(cudaSuccess);
  expect_the_same_bits(got, wanted);
  EXPECT_EQ(got.repeats, 0);
}

TEST(NotRepeated, WorkOfRoutersIsNotEvenTried) {
  auto job = small_job("smlp", "f32");
  job.model.dropout = 0;
  const Trained trained = train(job, Ranks::staged, make_cuda_backend(), 3);
  EXPECT_EQ(trained.repeats, 0);
  EXPECT_EQ(trained.refusal, "");
}

// Staged, parts of sums and of values go through the host's memory; an update begins within a segment.
TEST(Shards, TrainAsWithoutThem) {
  for (const auto ranks : {Ranks::staged, Ranks::by_nccl}) {
    auto job = small_job("smlp", "bf16");
    job.optimizer.clip_norm = 0;  // the order of the norm's sum would show
    const Trained wanted = train(job, ranks, make_cuda_backend());
    job.optimizer.shard_states = true;
    const Trained got = train(job, ranks, make_cuda_backend());
    EXPECT_EQ(got.losses, wanted.losses);
    for (std::size_t i = 0; i < wanted.norms.size(); ++i) EXPECT_NEAR(got.norms[i], wanted.norms[i], 1e-9);
  }
}

}  // namespace
}  // namespace smlp
