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

// Windows that a rank takes at once; `first` and `count` of those that are scored.
struct Windows {
  std::int64_t first = 0, count = 0, length = 0;
};

// Their tokens, on the host.
struct Batch {
  Windows windows;
  std::vector<std::int32_t> tokens, targets, window;

  template <class StartOf>
  void read(const TokenFile& file, const Windows& of, const StartOf& start_of) {
    windows = of;
    tokens.clear();
    targets.clear();
    window.resize(static_cast<std::size_t>(of.length + 1));
    for (auto w = of.first; w < of.first + of.count; ++w) {
      file.read(start_of(w), window);
      tokens.insert(tokens.end(), window.begin(), window.end() - 1);
      targets.insert(targets.end(), window.begin() + 1, window.end());
    }
  }
};

// The sum of the batch's loss (f64 [1]), which the backend may still be computing.
TensorView score(Model& model, Backend& backend, Arena& arena, const Batch& batch, std::vector<RoutingReport>* reports) {
  const auto [first, count, length] = batch.windows;
  arena.reset();
  const auto total = arena.take({1}, DType::f64);
  backend.fill(total, 0);
  Context c{.backend = backend, .scratch = arena, .mode = Mode::evaluation, .sequences = count, .length = length};
  c.tokens = arena.take({count * length}, DType::i32);
  c.targets = arena.take({count * length}, DType::i32);
  backend.upload(batch.tokens.data(), c.tokens);
  backend.upload(batch.targets.data(), c.targets);
  c.reports = reports;
  c.compare_routing = reports != nullptr;
  const auto row_loss = arena.take({count * length}, DType::f64);
  model.forward_loss(c, row_loss);
  backend.sum(row_loss, total);
  return total;
}

}  // namespace

Evaluation evaluate(Model& model, Backend& backend, Arena& arena, Communicator& world, const TokenFile& file,
                    const EvaluationPlan& plan, const std::function<void()>& between) {
  const std::int64_t predicted = std::max<std::int64_t>(file.tokens() - 1, 0);
  const std::int64_t all = predicted / plan.context;
  const bool some = plan.windows > 0 && plan.windows <= all;
  const std::int64_t whole = some ? plan.windows : all, tail = some ? 0 : predicted % plan.context;
  // Every rank makes the same number of calls, some with no window: experts are shared.
  const std::int64_t ranks = world.size(), a_turn = plan.batch * ranks, turns = (whole + a_turn - 1) / a_turn;
  const std::int64_t calls = turns + (tail > 0 ? 1 : 0);
  const auto windows_of = [&](std::int64_t call) -> Windows {
    if (call == turns) return {whole, world.rank() == 0 ? 1 : 0, tail};
    const std::int64_t first = std::min(call * a_turn + world.rank() * plan.batch, whole);
    return {first, std::min(plan.batch, whole - first), plan.context};
  };
  const auto start_of = [&](std::int64_t window) { return (some ? window * all / whole : window) * plan.context; };
  Evaluation result;
  Batch batch;
  std::vector<RoutingReport> reports;
  if (calls > 0) batch.read(file, windows_of(0), start_of);
  for (std::int64_t call = 0; call < calls; ++call) {
    const TensorView total = score(model, backend, arena, batch, plan.compare_routing ? &reports : nullptr);
    for (const auto& report : reports) {
      agreement_of(report.block, result.agreement)
          .add({report.block, static_cast<double>(report.compared), static_cast<double>(report.alike)});
    }
    reports.clear();
    if (call + 1 < calls) batch.read(file, windows_of(call + 1), start_of);  // while a device computes
    double sum = 0;
    backend.download(total, &sum);
    result.loss_sum += sum;
    between();
  }
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
