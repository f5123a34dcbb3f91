// `bench step`: whole training steps on random tokens, beside the product rate of the same run.
#include <algorithm>
#include <array>

#include "worker/bench.h"
#include "worker/bench_engine.h"
#include "worker/machine_limits.h"
#include "worker/plan_json.h"
#include "worker/stopwatch.h"

namespace smlp {

void bench_step(const BenchOptions& options, nlohmann::json& result) {
  const auto& job = options.job;
  auto backend = make_backend(job);
  auto grid = grid_for(job, *backend);
  BenchEngine bench(job, std::move(backend), std::move(grid));
  bench.warm_up();
  auto& machine = bench.engine().backend();
  auto rate = product_rate(machine, value_type(job), options.least_product);
  std::vector<BenchEngine::Step> steps;
  auto& world = *bench.engine().grid().world;
  const Stopwatch watch;
  std::array<double, 1> more = {1};
  while (more[0] > 0) {
    steps.push_back(bench.step());
    more[0] = world.rank() == 0 && (steps.size() < 5 || watch.seconds() < options.seconds) ? 1 : 0;
    world.all_reduce_host(more, Reduce::sum);
  }
  rate = std::max(rate, product_rate(machine, value_type(job), options.least_product));
  if (world.rank() != 0) return;
  const auto [median, phases] = BenchEngine::middle(steps);
  const int ranks = world.size();
  const double tokens_per_second = static_cast<double>(bench.tokens_per_step()) / median;
  const double useful = tokens_per_second / ranks * useful_flops_per_token(count_alone(job), job.model.context);
  result = {{"tokens_per_second", tokens_per_second},
            {"tokens_per_step", bench.tokens_per_step()},
            {"micro_batch", job.train.micro_batch},
            {"step_seconds", median},
            {"steps", steps.size()},
            {"matmul_flops_per_second", rate},
            {"useful_flops_per_second", useful},
            {"share", useful / rate},
            {"dtype", job.train.precision},
            {"device", device_name(gpu_of(job))},
            {"isa", cpu_isa()},
            {"ranks", ranks},
            {"threads", job.cluster.threads}};
  for (std::size_t i = 0; i < phase_count; ++i) {
    result["phases"][phase_names[i]] = phases[static_cast<Phase>(i)];
  }
}

}  // namespace smlp
