// "No allocation in a step": what the loop of training takes from the heap once it has got going, for every kind of model.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "core/random.h"
#include "data/token_file_writer.h"
#include "tests/data/scratch.h"
#include "tests/worker/heap_watch.h"
#include "tests/worker/small_job.h"
#include "worker/engine.h"

namespace smlp::test {
namespace {

struct Trained {
  const char* name;
  const char* kind;
  std::function<void(JobConfig&)> with = [](JobConfig&) {};
};

void PrintTo(const Trained& trained, std::ostream* out) { *out << trained.name; }

JobConfig job_of(const Trained& trained, const std::string& precision) {
  auto job = small_job(trained.kind, precision);
  job.model.context = 16;
  job.model.width = job.model.hidden = 32;
  job.model.dense_blocks = 2;
  job.model.sparse_blocks *= 2;
  job.cluster.ranks = 1;
  trained.with(job);
  return job;
}

// The same tokens each step: experts that get as many rows as come are given as many each time.
class Training {
 public:
  explicit Training(const JobConfig& job) : job_(job) {
    const RandomStream random(3, "tokens");
    const auto size = static_cast<std::uint64_t>(job.train.global_batch * job.model.context);
    for (std::uint64_t i = 0; i < size; ++i) tokens_.push_back(static_cast<std::int32_t>(random.bits(i) % 64));
    auto backend = make_cpu_backend();
    auto solo = make_solo(*backend);
    engine_ = std::make_unique<Engine>(job, std::move(backend), ProcessGrid::cut(std::move(solo), 1), true);
    read_ = [this](std::int64_t position, std::int64_t, std::int64_t, const std::int32_t*& in, const std::int32_t*& wanted) {
      in = wanted = tokens_.data() + position % job_.train.global_batch * job_.model.context;
    };
  }

  Engine& engine() { return *engine_; }

  double step() {
    const std::int64_t first = steps_++ * job_.train.global_batch;
    return engine_->train_step(steps_, first, read_, flags_, between_).loss;
  }

 private:
  JobConfig job_;
  std::unique_ptr<Engine> engine_;
  ReadBatch read_;
  std::function<void()> between_ = [] {};
  std::vector<std::int32_t> tokens_;
  std::vector<double> flags_ = {0, 0, 0};
  std::int64_t steps_ = 0;
};

TEST(HeapWatch, CountsWhatItsThreadTakes) {
  const HeapWatch watch;
  ::operator delete(::operator new(8));
  std::thread([] { ::operator delete(::operator new(8)); }).join();
  EXPECT_GE(watch.taken(), 1);
  EXPECT_LE(watch.taken(), 2) << "a thread is begun with one, and takes its own";
  EXPECT_NE(watch.told().find("8 bytes"), std::string::npos);
}

class SteadyStep : public testing::TestWithParam<Trained> {};

TEST_P(SteadyStep, TakesNothingFromTheHeap) {
  for (const char* precision : {"f32", "bf16", "fp16", "f64"}) {
    Training training(job_of(GetParam(), precision));
    for (int i = 0; i < 3; ++i) training.step();
    const HeapWatch watch;
    training.step();
    EXPECT_EQ(watch.taken(), 0) << precision << ", by:\n" << watch.told();
  }
}

TEST_P(SteadyStep, IsFollowedByEvaluationsThatTakeAsMuchForManyWindows) {
  const Scratch scratch;
  {
    TokenFileWriter writer(scratch / "tokens", 64);
    std::vector<std::int32_t> tokens(16 * 24 + 1);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * i % 61);
    writer.append(tokens);
    writer.finish();
  }
  const TokenFile file(scratch / "tokens");
  Training training(job_of(GetParam(), "f64"));  // in f32 products of new shapes are set up as they come
  training.step();
  const auto taken = [&](std::int64_t windows) {
    const HeapWatch watch;
    training.engine().evaluate(file, windows, [] {}, true);
    return watch.taken();
  };
  taken(24);
  EXPECT_EQ(taken(24), taken(4));
}

INSTANTIATE_TEST_SUITE_P(
    Of, SteadyStep,
    testing::Values(Trained{"gmlp", "gmlp"}, Trained{"transformer", "transformer"}, Trained{"smlp", "smlp"},
                    Trained{"base", "base"}, Trained{"hash", "hash"}, Trained{"switch", "switch"}, Trained{"gshard", "gshard"},
                    Trained{"smlp_that_routes_channels", "smlp", [](JobConfig& job) { job.routing.channels = "partial"; }},
                    Trained{"base_shuffled", "base", [](JobConfig& job) { job.routing.shuffle = true; }},
                    Trained{"switch_with_jitter", "switch", [](JobConfig& job) { job.routing.jitter = 0.1; }},
                    Trained{"gshard_without_capacity", "gshard",
                            [](JobConfig& job) {
                              job.routing.capacity_factor = 0;
                              // As many rows each step: a product of a new shape is set up when it first comes.
                              job.routing.second_expert = "all";
                              job.model.dropout = 0;
                              job.optimizer.learning_rate = 0;
                              job.schedule.warmup_steps = 0;
                            }},
                    Trained{"switch_with_shares", "switch", [](JobConfig& job) { job.routing.first_expert = "sinkhorn"; }},
                    Trained{"switch_with_a_bias", "switch", [](JobConfig& job) { job.routing.expert_bias_rate = 1e-3; }}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace smlp::test
