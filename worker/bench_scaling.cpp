// `bench scaling`: N ranks sharing one job against N independent one-rank jobs running at the same time, on the
// same cores, turn by turn in one run.
#include <array>

#include "core/statistics.h"
#include "worker/bench.h"
#include "worker/bench_engine.h"
#include "worker/stopwatch.h"

namespace smlp {

namespace {

constexpr int steps_a_turn = 3;

// Tokens a second of all ranks over one turn that all begin together; each rank counts its own steps when
// `independent`, and the ranks' rates are added up.
double turn(BenchEngine& bench, Communicator& world, bool independent) {
  world.barrier();
  const Stopwatch watch;
  for (int i = 0; i < steps_a_turn; ++i) bench.step();
  std::array<double, 1> rate = {static_cast<double>(steps_a_turn * bench.tokens_per_step()) / watch.seconds()};
  world.all_reduce_host(rate, Reduce::sum);
  return independent ? rate[0] : rate[0] / world.size();
}

}  // namespace

void bench_scaling(const BenchOptions& options, nlohmann::json& result) {
  const auto& job = options.job;
  auto shared_backend = make_backend(job);
  auto shared_grid = grid_for(job, *shared_backend);
  auto meeting = shared_grid.world->split(0, shared_grid.world->rank());
  const int ranks = meeting->size();
  BenchEngine shared(job, std::move(shared_backend), std::move(shared_grid));

  auto lone_job = job;
  lone_job.cluster.ranks = lone_job.cluster.expert_ranks = 1;
  lone_job.train.global_batch /= ranks;
  auto lone_backend = make_backend(lone_job);
  auto lone_grid = ProcessGrid::cut(make_solo(*lone_backend), 1);
  BenchEngine lone(lone_job, std::move(lone_backend), std::move(lone_grid));

  shared.warm_up();
  lone.warm_up();
  std::vector<double> together, apart, ratios;
  const Stopwatch watch;
  std::array<double, 1> more = {1};
  while (more[0] > 0) {
    apart.push_back(turn(lone, *meeting, true));
    together.push_back(turn(shared, *meeting, false));
    ratios.push_back(together.back() / apart.back());
    more[0] = meeting->rank() == 0 && (ratios.size() < 3 || watch.seconds() < 4 * options.seconds) ? 1 : 0;
    meeting->all_reduce_host(more, Reduce::sum);
  }
  if (meeting->rank() != 0) return;
  result = {{"ranks", ranks},
            {"tokens_per_second", upper_median(together)},
            {"ceiling_tokens_per_second", upper_median(apart)},
            {"ratio", upper_median(ratios)},
            {"turns", ratios.size()}};
}

}  // namespace smlp
