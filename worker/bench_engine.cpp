#include "worker/bench_engine.h"

#include <algorithm>
#include <utility>

#include "core/random.h"
#include "core/statistics.h"
#include "worker/stopwatch.h"
#include "worker/world.h"

namespace smlp {

ProcessGrid grid_for(const JobConfig& job, Backend& backend) {
  return ProcessGrid::cut(join_world(backend, job.cluster.communicator), static_cast<int>(job.cluster.expert_ranks));
}

BenchEngine::BenchEngine(const JobConfig& job, std::unique_ptr<Backend> backend, ProcessGrid grid) : job_(job) {
  const RandomStream random(7, "bench");
  const auto size = static_cast<std::uint64_t>(job_.train.micro_batch * job_.model.context);
  for (std::uint64_t i = 0; i <= size; ++i) {
    const auto id = static_cast<std::int32_t>(random.bits(i) % static_cast<std::uint64_t>(job_.model.vocabulary));
    if (i < size) tokens_.push_back(id);
    if (i > 0) targets_.push_back(id);
  }
  engine_ = std::make_unique<Engine>(job_, std::move(backend), std::move(grid), true);
}

BenchEngine::Step BenchEngine::middle(const std::vector<Step>& steps) {
  std::vector<double> seconds;
  for (const auto& step : steps) seconds.push_back(step.seconds);
  const double median = upper_median(std::move(seconds));
  return *std::find_if(steps.begin(), steps.end(), [&](const Step& step) { return step.seconds == median; });
}

void BenchEngine::warm_up() {
  for (int i = 0; i < 2; ++i) step();
}

BenchEngine::Step BenchEngine::step() {
  const Stopwatch watch;
  const auto read = [this](std::int64_t, std::int64_t, std::int64_t, const std::int32_t*& tokens,
                           const std::int32_t*& targets) {
    tokens = tokens_.data();
    targets = targets_.data();
  };
  ++steps_;
  const auto result = engine_->train_step(steps_, 0, read, {}, [] {});
  return {watch.seconds(), result.phases};
}

std::int64_t BenchEngine::tokens_per_step() const { return job_.train.global_batch * job_.model.context; }

}  // namespace smlp
