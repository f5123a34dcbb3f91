// `bench routing`: the balanced assignment beside the step it serves: what it takes, how many auction rounds, and
// how near its total score is to an upper bound, on random and on clustered tokens.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/random.h"
#include "tensor/arena.h"
#include "worker/bench.h"
#include "worker/engine.h"
#include "worker/machine_limits.h"

namespace smlp {

namespace {

// Scores [tokens, experts] in f32. With clusters, tokens of one cluster differ little and share their favourites.
std::vector<float> make_scores(std::int64_t tokens, std::int64_t experts, std::int64_t clusters) {
  const RandomStream noise(1, "noise"), centres(2, "centres");
  std::vector<float> scores(static_cast<std::size_t>(tokens * experts));
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto index = static_cast<std::uint64_t>(t * experts + e);
      double score = noise.normal(index);
      if (clusters > 0) score = 0.05 * score + centres.normal(static_cast<std::uint64_t>(t % clusters * experts + e));
      scores[index] = static_cast<float>(score);
    }
  }
  return scores;
}

double total_score(const std::vector<float>& scores, std::int64_t experts, const std::vector<std::int32_t>& slots) {
  const std::size_t capacity = slots.size() / static_cast<std::size_t>(experts);
  double total = 0;
  for (std::size_t s = 0; s < slots.size(); ++s) {
    if (slots[s] < 0) continue;
    total += scores[static_cast<std::size_t>(slots[s]) * static_cast<std::size_t>(experts) + s / capacity];
  }
  return total;
}

// No assignment scores more than every token's best expert, balanced or not.
double upper_bound(const std::vector<float>& scores, std::int64_t experts) {
  double total = 0;
  for (auto row = scores.begin(); row != scores.end(); row += experts) total += *std::max_element(row, row + experts);
  return total;
}

nlohmann::json measure(Backend& backend, std::int64_t tokens, std::int64_t experts, std::int64_t clusters,
                       double seconds) {
  Arena arena(backend);
  const auto scores = make_scores(tokens, experts, clusters);
  const auto view = arena.take({tokens, experts}, DType::f32);
  backend.upload(scores.data(), view);
  const std::int64_t capacity = (tokens + experts - 1) / experts;
  const auto slots = arena.take({experts, 1, capacity}, DType::i32), rounds = arena.take({1}, DType::i32);
  double least = INFINITY, sum = 0;
  int times = 0;
  for (const Stopwatch watch; times < 3 || watch.seconds() < seconds; ++times) {
    const Stopwatch one;
    backend.assign_balanced(view, 1, slots, rounds);
    least = std::min(least, one.seconds());
    sum += one.seconds();
  }
  std::vector<std::int32_t> answer(static_cast<std::size_t>(slots.size()));
  std::int32_t auction_rounds = 0;
  backend.download(slots, answer.data());
  backend.download(rounds, &auction_rounds);
  const double mean_score = total_score(scores, experts, answer) / static_cast<double>(tokens);
  return {{"tokens", tokens},
          {"experts", experts},
          {"clusters", clusters},
          {"seconds_best", least},
          {"seconds_mean", sum / times},
          {"rounds", auction_rounds},
          {"mean_score", mean_score},
          {"mean_score_bound", upper_bound(scores, experts) / static_cast<double>(tokens)}};
}

}  // namespace

void bench_routing(const BenchOptions& options, nlohmann::json& result) {
  const auto& job = options.job;
  auto backend = make_backend(job);
  const double rate = product_rate(*backend, value_type(job));
  result["matmul_flops_per_second"] = rate;
  for (const auto& [tokens, experts] : {std::pair<std::int64_t, std::int64_t>{4096, 32}, {2048, 4}}) {
    for (const std::int64_t clusters : {0, 16}) {
      auto one = measure(*backend, tokens, experts, clusters, options.seconds / 4);
      // The step that this assignment serves, at the speed of the products alone.
      const double step = useful_flops_per_token(job) * static_cast<double>(tokens) / rate;
      one["share_of_step_bound"] = one["seconds_mean"].get<double>() / step;
      result["assignments"].push_back(std::move(one));
    }
  }
}

}  // namespace smlp
