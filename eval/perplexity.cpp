#include "eval/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/error.h"

namespace smlp {

double Evaluation::loss() const { return tokens == 0 ? 0.0 : loss_sum / static_cast<double>(tokens); }
double Evaluation::perplexity() const { return std::exp(loss()); }
double Evaluation::bits_per_byte(double bytes) const {
  return bytes > 0 ? loss_sum / std::numbers::ln2 / bytes : 0.0;
}

namespace {

// Adds the loss of the windows of `length` tokens that begin at the tokens `starts` to the f64 `total`.
void score_windows(Model& model, Backend& backend, Arena& arena, const TokenFile& file,
                   const std::vector<std::int64_t>& starts, std::int64_t length, TensorView total) {
  const auto count = static_cast<std::int64_t>(starts.size());
  const std::int64_t rows = count * length;
  std::vector<std::int32_t> tokens, targets, window(static_cast<std::size_t>(length + 1));
  for (const auto start : starts) {
    file.read(start, window);
    tokens.insert(tokens.end(), window.begin(), window.end() - 1);
    targets.insert(targets.end(), window.begin() + 1, window.end());
  }
  Context c{.backend = backend, .scratch = arena, .mode = Mode::evaluation, .sequences = count, .length = length};
  c.tokens = arena.take({rows}, DType::i32);
  c.targets = arena.take({rows}, DType::i32);
  backend.upload(tokens.data(), c.tokens);
  backend.upload(targets.data(), c.targets);
  const auto row_loss = arena.take({rows}, DType::f64);
  model.forward_loss(c, row_loss);
  backend.sum(row_loss, total);
}

}  // namespace

Evaluation evaluate(Model& model, Backend& backend, Arena& arena, Communicator& world, const TokenFile& file,
                    const EvaluationPlan& plan, const std::function<void()>& between) {
  const std::int64_t predicted = std::max<std::int64_t>(file.tokens() - 1, 0);
  const std::int64_t all = predicted / plan.context;
  const bool some = plan.windows > 0 && plan.windows <= all;
  const std::int64_t whole = some ? plan.windows : all, tail = some ? 0 : predicted % plan.context;
  double loss_sum = 0;
  const auto score = [&](std::int64_t first, std::int64_t count, std::int64_t length) {
    std::vector<std::int64_t> starts;
    for (auto w = first; w < first + count; ++w) starts.push_back((some ? w * all / whole : w) * plan.context);
    arena.reset();
    const auto total = arena.take({1}, DType::f64);
    backend.fill(total, 0);
    score_windows(model, backend, arena, file, starts, length, total);
    double sum = 0;
    backend.download(total, &sum);
    loss_sum += sum;
    between();
  };
  // Every rank makes the same number of calls, some with no window: experts are shared.
  const std::int64_t ranks = world.size(), a_turn = plan.batch * ranks;
  for (std::int64_t turn = 0; turn * a_turn < whole; ++turn) {
    const std::int64_t first = std::min(turn * a_turn + world.rank() * plan.batch, whole);
    score(first, std::min(plan.batch, whole - first), plan.context);
  }
  if (tail > 0) score(whole, world.rank() == 0 ? 1 : 0, tail);
  std::array<double, 1> sum = {loss_sum};
  world.all_reduce_host(sum, Reduce::sum);
  const std::int64_t counted = whole * model.predicted(plan.context) + model.predicted(tail);
  if (counted == 0 && predicted > 0) {
    throw Error(ExitCode::configuration,
                fmt::format("a text of {} tokens holds none that this model predicts: they are no more than the prefix by "
                            "which it routes channels; take a longer text",
                            file.tokens()));
  }
  return {sum[0], counted};
}

}  // namespace smlp
