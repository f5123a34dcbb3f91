#include "eval/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/error.h"

namespace smlp {

namespace {

RoutingAgreement& agreement_of(std::int64_t block, std::vector<RoutingAgreement>& agreement) {
  for (auto& known : agreement) {
    if (known.block == block) return known;
  }
  return agreement.emplace_back(RoutingAgreement{block, 0, 0});
}

}  // namespace

double Evaluation::loss() const { return tokens == 0 ? 0.0 : loss_sum / static_cast<double>(tokens); }
double Evaluation::perplexity() const { return std::exp(loss()); }
std::optional<double> Evaluation::bits_per_byte(double bytes) const {
  return bytes > 0 ? std::optional(loss_sum / std::numbers::ln2 / bytes) : std::nullopt;
}

std::optional<double> Evaluation::routing_agreement() const {
  RoutingAgreement all;
  for (const auto& block : agreement) {
    all.compared += block.compared;
    all.alike += block.alike;
  }
  return all.compared > 0 ? std::optional(all.share()) : std::nullopt;
}

void Evaluation::add(const Evaluation& other) {
  loss_sum += other.loss_sum;
  tokens += other.tokens;
  for (const auto& block : other.agreement) agreement_of(block.block, agreement).add(block);
}

namespace {

// Adds the loss of the windows of `length` tokens that begin at the tokens `starts` to the f64 `total`.
void score_windows(Model& model, Backend& backend, Arena& arena, const TokenFile& file,
                   const std::vector<std::int64_t>& starts, std::int64_t length, TensorView total,
                   std::vector<RoutingReport>* reports) {
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
  c.reports = reports;
  c.compare_routing = reports != nullptr;
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
  Evaluation result;
  std::vector<RoutingReport> reports;
  const auto score = [&](std::int64_t first, std::int64_t count, std::int64_t length) {
    std::vector<std::int64_t> starts;
    for (auto w = first; w < first + count; ++w) starts.push_back((some ? w * all / whole : w) * plan.context);
    arena.reset();
    const auto total = arena.take({1}, DType::f64);
    backend.fill(total, 0);
    score_windows(model, backend, arena, file, starts, length, total, plan.compare_routing ? &reports : nullptr);
    for (const auto& report : reports) {
      agreement_of(report.block, result.agreement)
          .add({report.block, static_cast<double>(report.compared), static_cast<double>(report.alike)});
    }
    reports.clear();
    double sum = 0;
    backend.download(total, &sum);
    result.loss_sum += sum;
    between();
  };
  // Every rank makes the same number of calls, some with no window: experts are shared.
  const std::int64_t ranks = world.size(), a_turn = plan.batch * ranks;
  for (std::int64_t turn = 0; turn * a_turn < whole; ++turn) {
    const std::int64_t first = std::min(turn * a_turn + world.rank() * plan.batch, whole);
    score(first, std::min(plan.batch, whole - first), plan.context);
  }
  if (tail > 0) score(whole, world.rank() == 0 ? 1 : 0, tail);
  // Every rank has the same list of blocks, also one that never had a window.
  std::vector<double> sums = {result.loss_sum};
  for (const auto& block : result.agreement) sums.insert(sums.end(), {block.compared, block.alike});
  world.all_reduce_host(sums, Reduce::sum);
  result.loss_sum = sums[0];
  for (std::size_t i = 0; i < result.agreement.size(); ++i) {
    result.agreement[i].compared = sums[1 + 2 * i];
    result.agreement[i].alike = sums[2 + 2 * i];
  }
  result.tokens = whole * model.predicted(plan.context) + model.predicted(tail);
  if (predicted == 0) {
    throw Error(ExitCode::configuration,
                fmt::format("a text of {} tokens holds none to predict: two are needed for a loss; take a longer text",
                            file.tokens()));
  }
  if (result.tokens == 0) {
    throw Error(ExitCode::configuration,
                fmt::format("a text of {} tokens holds none that this model predicts: they are no more than the prefix by "
                            "which it routes channels; take a longer text",
                            file.tokens()));
  }
  return result;
}

}  // namespace smlp
