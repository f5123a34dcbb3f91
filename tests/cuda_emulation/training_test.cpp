// Models of every kind take steps on the GPU, an emulated one or this machine's, as on the CPU; two ranks, staged, as they do over MPI, by NCCL
// as staged, and as one rank.
#include <gtest/gtest.h>

#include <cmath>

#include "layers/plan.h"
#include "tests/cuda_emulation/small_model.h"

namespace smlp::test {
namespace {

struct Trained {
  std::vector<double> losses, norms, evaluated;
  std::vector<double> loads;  // of all steps: of each block tokens by expert, tokens dropped, rounds of assignment
  std::vector<std::byte> weights;  // after the last step
  std::int64_t allocations = 0, peak = 0;  // of scratch memory
  std::int64_t counted = 0;                // before the first step
  std::int64_t repeats = 0;        // micro-batches that the device was handed as a graph
  std::string refusal;
};

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

Trained train(const JobConfig& job, Ranks ranks, std::unique_ptr<Backend> backend, int steps = 2, bool evaluates = false) {
  SmallRun run(job, ranks, std::move(backend));
  auto& engine = run.engine();
  Trained trained;
  for (int step = 1; step <= steps; ++step) {
    const auto result = run.step();
    trained.losses.push_back(result.loss);
    trained.norms.push_back(result.gradient_norm);
    for (const auto& load : result.blocks) {
      trained.loads.insert(trained.loads.end(), load.expert_tokens.begin(), load.expert_tokens.end());
      trained.loads.insert(trained.loads.end(), {load.dropped, load.rounds});
    }
    if (evaluates && step % 3 == 0) trained.evaluated.push_back(evaluate(engine, job, 4 * step));  // memory grows each time
  }
  for (const auto& segment : engine.store().segments()) {
    std::vector<std::byte> values(static_cast<std::size_t>(segment.value.bytes()));
    engine.backend().download(segment.value, values.data());
    trained.weights.insert(trained.weights.end(), values.begin(), values.end());
  }
  trained.allocations = engine.arena().allocations();
  trained.peak = engine.arena().peak_bytes();
  trained.counted = count_scratch(model_config(job), engine.grid().experts->size(), job.train.micro_batch, value_type(job),
                                  engine.backend().rows_at_once());
  trained.repeats = engine.recording().repeats;
  trained.refusal = engine.recording().refusal;
  return trained;
}

class Training : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Of, Training, testing::ValuesIn(every_kind), [](const auto& info) { return std::string(info.param); });

TEST_P(Training, TakesTheStepsOfTheCpu) {
  for (const auto& [precision, tolerance] : {std::pair{"f32", 2e-4}, {"bf16", 3e-2}, {"fp16", 4e-3}}) {
    const auto job = small_job(GetParam(), precision);
    const Trained wanted = train(job, Ranks::over_mpi, make_cpu_backend());
    const Trained got = train(job, Ranks::staged, gpu());
    EXPECT_EQ(got.allocations, 1) << "what a step takes was counted before the first";
    if (job.model.kind != "hash") {  // whose rows are as uneven as the text
      EXPECT_LE(got.peak, got.counted);
    }
    EXPECT_LT(wanted.losses.back(), wanted.losses.front() + 1);
    for (std::size_t i = 0; i < wanted.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], wanted.losses[i], tolerance * wanted.losses[i])
          << precision << ", step " << i + 1;
      EXPECT_NEAR(got.norms[i], wanted.norms[i], 10 * tolerance * wanted.norms[i])
          << precision << ", step " << i + 1;
    }
    if (job.train.precision == "f32") {
      EXPECT_EQ(got.loads, wanted.loads);
      continue;
    }
    const Trained again = train(job, Ranks::staged, gpu());
    EXPECT_EQ(again.losses, got.losses) << "the same bits, in whatever order threads run";
    EXPECT_EQ(again.norms, got.norms);
  }
}

TEST_P(Training, OfTwoRanksByNcclIsThatOfOne) {
  if (!nccl_takes_all_ranks()) GTEST_SKIP() << "NCCL wants a GPU for each rank, and of one alone nothing is asked";
  const auto job = small_job(GetParam(), "f32");
  const Trained got = train(job, Ranks::by_nccl, gpu());
  const Trained staged = train(job, Ranks::staged, gpu());
  EXPECT_EQ(got.losses, staged.losses) << "of two numbers there is one sum";
  EXPECT_EQ(got.norms, staged.norms);
  EXPECT_EQ(got.loads, staged.loads);
  const Trained one = train(job, Ranks::one, gpu());
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
  const Ranks ranks = nccl_takes_all_ranks() ? Ranks::by_nccl : Ranks::staged;
  for (const char* precision : {"f32", "fp16"}) {
    SCOPED_TRACE(precision);
    const Trained wanted = train(job(precision, "off"), ranks, gpu(), 6, true);
    const Trained got = train(job(precision, "auto"), ranks, gpu(), 6, true);
    expect_the_same_bits(got, wanted);
    EXPECT_EQ(wanted.repeats, 0);
    EXPECT_GT(got.repeats, 0);
    EXPECT_EQ(got.refusal, "");
  }
}

TEST_P(Repeated, MasksOfDropoutAreDrawnAnew) {
  auto dropping = job("f32", "off");
  dropping.model.dropout = 0.1;
  const Trained wanted = train(dropping, Ranks::staged, gpu(), 4);
  dropping.cluster.cuda_graphs = "auto";
  const Trained got = train(dropping, Ranks::staged, gpu(), 4);
  expect_the_same_bits(got, wanted);
  EXPECT_GT(got.repeats, 0);
}

TEST(NotRepeated, WorkOfRoutersIsNotEvenTried) {
  auto job = small_job("smlp", "f32");
  job.model.dropout = 0;
  const Trained trained = train(job, Ranks::staged, gpu(), 3);
  EXPECT_EQ(trained.repeats, 0);
  EXPECT_EQ(trained.refusal, "");
}

// Staged, parts of sums and of values go through the host's memory; an update begins within a segment.
TEST(Shards, TrainAsWithoutThem) {
  for (const auto ranks : {Ranks::staged, Ranks::by_nccl}) {
    if (ranks == Ranks::by_nccl && !nccl_takes_all_ranks()) continue;
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
