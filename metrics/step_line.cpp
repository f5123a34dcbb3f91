#include "metrics/step_line.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

namespace smlp {

namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

nlohmann::json whole(double value) {
  return std::isfinite(value) ? nlohmann::json(static_cast<std::int64_t>(value)) : nlohmann::json();
}

nlohmann::json block_json(const StepReport::Block& block) {
  return {{"block", block.block},
          {"expert_tokens", block.expert_tokens},
          {"expert_balance", expert_balance(block.expert_tokens)},
          {"routing_entropy", routing_entropy(block.expert_tokens)},
          {"dropped_tokens", block.dropped},
          {"assignment_rounds", block.assignment_rounds}};
}

}  // namespace

double expert_balance(std::span<const double> tokens) {
  const double sum = std::accumulate(tokens.begin(), tokens.end(), 0.0);
  if (!(sum > 0)) return unknown;
  return *std::max_element(tokens.begin(), tokens.end()) * static_cast<double>(tokens.size()) / sum;
}

double routing_entropy(std::span<const double> tokens) {
  const double sum = std::accumulate(tokens.begin(), tokens.end(), 0.0);
  if (!(sum > 0)) return unknown;
  if (tokens.size() == 1) return 1;
  double entropy = 0;
  for (const double n : tokens) {
    if (n > 0) entropy -= n / sum * std::log(n / sum);
  }
  return entropy / std::log(static_cast<double>(tokens.size()));
}

nlohmann::json step_line(const StepReport& report, std::int64_t attempt, double unix_time, const RunTotals& totals) {
  nlohmann::json line = {{"step", report.step},
                         {"attempt", attempt},
                         {"time", unix_time},
                         {"loss", report.loss},
                         {"learning_rate", report.learning_rate},
                         {"gradient_norm", report.gradient_norm},
                         {"step_seconds", report.seconds},
                         {"tokens", report.tokens},
                         {"steps_total", whole(totals.steps)},
                         {"tokens_total", whole(totals.tokens)},
                         {"tokens_per_second", report.tokens_per_second},
                         {"flops_share", report.flops_share},
                         {"phase_seconds", report.phase_seconds},
                         {"checkpoint_last_step", whole(totals.checkpoint_step)},
                         {"checkpoint_stall_seconds_total", totals.checkpoint_stall_seconds},
                         {"checkpoint_failures_total", whole(totals.checkpoint_failures)}};
  for (const auto& block : report.blocks) line["blocks"].push_back(block_json(block));
  if (report.auxiliary_loss) line["auxiliary_loss"] = *report.auxiliary_loss;
  if (report.balance_loss) line["balance_loss"] = *report.balance_loss;
  if (report.z_loss) line["z_loss"] = *report.z_loss;
  if (report.loss_scale) line["loss_scale"] = *report.loss_scale;
  if (!report.evaluation) return line;
  line["validation_loss"] = report.evaluation->validation_loss;
  if (const auto share = report.evaluation->routing_agreement) line["routing_agreement"] = *share;
  return line;
}

}  // namespace smlp
