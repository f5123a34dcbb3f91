// `bench routing`: the balanced assignment beside the step it serves: what it takes, how many auction rounds, and how
// near its total score is to the best there is, on random and on clustered tokens; and what whole routers take.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/random.h"
#include "layers/model.h"
#include "tensor/exact_assignment.h"
#include "worker/bench.h"
#include "worker/engine.h"
#include "worker/machine_limits.h"
#include "worker/stopwatch.h"

namespace smlp {

namespace {

struct Size {
  std::int64_t tokens, experts;
};

// Scores [tokens, experts] in f32. With clusters, tokens of one cluster differ little and share their favourites.
std::vector<float> make_scores(const Size& size, std::int64_t clusters) {
  const RandomStream noise(1, "noise"), centres(2, "centres");
  std::vector<float> scores(static_cast<std::size_t>(size.tokens * size.experts));
  for (std::int64_t t = 0; t < size.tokens; ++t) {
    for (std::int64_t e = 0; e < size.experts; ++e) {
      const auto index = static_cast<std::uint64_t>(t * size.experts + e);
      double score = noise.normal(index);
      if (clusters > 0) {
        score = 0.05 * score + centres.normal(static_cast<std::uint64_t>(t % clusters * size.experts + e));
      }
      scores[index] = static_cast<float>(score);
    }
  }
  return scores;
}

// Mean score a token, of slots [experts, capacity] and of an expert for each token.
double mean_of_slots(const std::vector<double>& scores, const Size& size, const std::vector<std::int32_t>& slots) {
  const std::size_t capacity = slots.size() / static_cast<std::size_t>(size.experts);
  double total = 0;
  for (std::size_t s = 0; s < slots.size(); ++s) {
    if (slots[s] < 0) continue;
    total += scores[static_cast<std::size_t>(slots[s] * size.experts) + s / capacity];
  }
  return total / static_cast<double>(size.tokens);
}

double mean_of_owners(const std::vector<double>& scores, const Size& size, const std::vector<std::int32_t>& owners) {
  double total = 0;
  for (std::size_t t = 0; t < owners.size(); ++t) {
    total += scores[t * static_cast<std::size_t>(size.experts) + static_cast<std::size_t>(owners[t])];
  }
  return total / static_cast<double>(size.tokens);
}

std::vector<std::int64_t> room_of(const std::vector<std::int32_t>& slots, std::int64_t experts) {
  const std::size_t capacity = slots.size() / static_cast<std::size_t>(experts);
  std::vector<std::int64_t> room(static_cast<std::size_t>(experts), 0);
  for (std::size_t s = 0; s < slots.size(); ++s) room[s / capacity] += slots[s] >= 0 ? 1 : 0;
  return room;
}

nlohmann::json measure(Backend& backend, const Size& size, std::int64_t clusters, double seconds) {
  Arena arena(backend);
  const auto scores = make_scores(size, clusters);
  const auto view = arena.take({size.tokens, size.experts}, DType::f32);
  backend.upload(scores.data(), view);
  const std::int64_t capacity = (size.tokens + size.experts - 1) / size.experts;
  const auto slots = arena.take({size.experts, 1, capacity}, DType::i32), rounds = arena.take({1}, DType::i32);
  double least = INFINITY, sum = 0;
  int times = 0;
  for (const Stopwatch watch; times < 3 || watch.seconds() < seconds; ++times) {
    const double one = backend.timed([&] { backend.assign_balanced(view, 1, slots, rounds); });
    least = std::min(least, one);
    sum += one;
  }
  std::vector<std::int32_t> answer(static_cast<std::size_t>(slots.size()));
  std::int32_t auction_rounds = 0;
  backend.download(slots, answer.data());
  backend.download(rounds, &auction_rounds);

  const std::vector<double> wide(scores.begin(), scores.end());
  const auto [lowest, highest] = std::minmax_element(wide.begin(), wide.end());
  const Stopwatch exact_watch;
  const auto best = assign_exactly(wide, size.tokens, room_of(answer, size.experts));
  const double exact_seconds = exact_watch.seconds();
  const double ours = mean_of_slots(wide, size, answer), exact = mean_of_owners(wide, size, best);
  return {{"tokens", size.tokens},
          {"experts", size.experts},
          {"clusters", clusters},
          {"seconds_best", least},
          {"seconds_mean", sum / times},
          {"rounds", auction_rounds},
          {"mean_score", ours},
          {"mean_score_exact", exact},
          {"gap", exact - ours},
          {"gap_share", (exact - ours) / std::abs(exact)},
          {"gap_in_epsilons", (exact - ours) / std::max(1e-4, (*highest - *lowest) / 50)},
          {"exact_seconds", exact_seconds}};
}

// Forward and backward of one sparse block alone, its tokens routed as one group: the least that an assignment serves.
class SparseBlock {
 public:
  SparseBlock(const JobConfig& job, Backend& backend, const Size& size)
      : backend_(backend), solo_(make_solo(backend)), scratch_(backend) {
    ModelConfig config = model_config(job);
    config.kind = "smlp";
    config.stack = {"smlp"};
    config.channels = "deterministic";
    config.heads = 1;
    config.width = (config.width + size.experts - 1) / size.experts * size.experts;  // as sMoE needs it
    config.hidden += config.hidden % 2;                                              // and a gate
    width_ = config.width;
    hidden_ = config.hidden;
    config.router = {};  // balanced
    config.vocabulary = 64;  // its head and embedding weigh nothing
    config.experts = size.experts;
    sequences_ = config.group_sequences = std::max<std::int64_t>(1, size.tokens / config.context);
    length_ = std::min(config.context, size.tokens);
    model_ = make_model(config, store_, {*solo_});
    store_.seal(backend, value_type(job), 1);
  }

  nlohmann::json describe(const JobConfig& job) const {
    return {{"block", "smlp"},    {"width", width_},         {"hidden", hidden_},
            {"context", length_}, {"sequences", sequences_}, {"precision", job.train.precision},
            {"threads", job.cluster.threads}};
  }

  double seconds() {
    double least = INFINITY;
    for (int i = 0; i < 4; ++i) {  // the first sets up kernels and memory
      const double one = step();
      if (i > 0) least = std::min(least, one);
    }
    return least;
  }

 private:
  double step() {
    scratch_.reset();
    const std::int64_t rows = sequences_ * length_;
    Context c{.backend = backend_, .scratch = scratch_, .sequences = sequences_, .length = length_};
    std::vector<std::int32_t> ids(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(RandomStream(7, "ids").bits(i) % 64);
    const double scale = 1 / static_cast<double>(rows);
    c.tokens = scratch_.take({rows}, DType::i32);
    c.targets = scratch_.take({rows}, DType::i32);
    c.loss_scale = scratch_.take({1}, DType::f64);
    backend_.upload(ids.data(), c.tokens);
    backend_.upload(ids.data(), c.targets);
    backend_.upload(&scale, c.loss_scale);
    const TensorView row_loss = scratch_.take({rows}, DType::f64);
    const Stopwatch watch;
    model_->forward_loss(c, row_loss);
    model_->backward(c, {});
    backend_.synchronize();
    return watch.seconds();
  }

  Backend& backend_;
  std::unique_ptr<Communicator> solo_;
  ParameterStore store_;
  Arena scratch_;
  std::unique_ptr<Model> model_;
  std::int64_t width_ = 0, hidden_ = 0, sequences_ = 0, length_ = 0;
};

// What a router of this kind takes to decide and to send gradients back, scores included; without moving a row.
double router_seconds(const JobConfig& job, Backend& backend, const Size& size, const RouterSettings& settings) {
  ParameterStore store;
  const RouterSizes sizes{.experts = size.experts, .width = job.model.width, .vocabulary = 64};
  const auto router = make_router(settings, store, "gate", sizes);
  store.seal(backend, value_type(job), 1);
  Arena arena(backend);
  double least = INFINITY;
  for (int i = 0; i < 4; ++i) {
    arena.reset();
    const TensorView x = arena.take({size.tokens, job.model.width}, value_type(job));
    const TensorView dx = arena.take(x.shape, x.dtype);
    backend.fill(x, 1);
    backend.jitter(x, 1, 5, 0, x);
    RouteCall call{.backend = backend, .scratch = arena, .group_rows = size.tokens, .seed = 1, .step = i};
    call.auxiliary = arena.take({1, 2}, DType::f64);
    call.row_scale = arena.take({1}, DType::f64);
    backend.fill(call.auxiliary, 0);
    backend.fill(call.row_scale, 1 / static_cast<double>(size.tokens));
    const Stopwatch watch;
    const RoutePlan plan = router->plan(call, x);
    router->backward(call, plan, plan.weight, {}, dx);
    backend.synchronize();
    if (i > 0) least = std::min(least, watch.seconds());
  }
  return least;
}

}  // namespace

void bench_routing(const BenchOptions& options, nlohmann::json& result) {
  const auto& job = options.job;
  auto backend = make_backend(job);
  result["matmul_flops_per_second"] = product_rate(*backend, value_type(job));
  for (const Size size : {Size{4096, 32}, Size{2048, 4}}) {
    SparseBlock block(job, *backend, size);
    const double step = block.seconds();
    for (const std::int64_t clusters : {0, 16}) {
      auto one = measure(*backend, size, clusters, options.seconds / 4);
      one["step"] = block.describe(job);
      one["step"]["seconds"] = step;
      one["share_of_step"] = one["seconds_best"].get<double>() / step;  // the best of several, both
      result["assignments"].push_back(std::move(one));
    }
    for (const char* tokens : {"balanced", "switch", "gshard"}) {
      const double seconds = router_seconds(job, *backend, size, {.tokens = tokens});
      result["routers"].push_back({{"tokens", size.tokens},
                                   {"experts", size.experts},
                                   {"router", tokens},
                                   {"seconds", seconds},
                                   {"share_of_step", seconds / step}});
    }
  }
}

}  // namespace smlp
