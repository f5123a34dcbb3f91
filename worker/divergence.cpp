#include "worker/divergence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/statistics.h"

namespace smlp {

namespace {

constexpr double deviations_of_a_normal = 1.4826, least_share = 0.01;

std::int64_t number_in(const RunState& state, const char* name) {
  const auto found = state.integers.find(name);
  return found == state.integers.end() || found->second.empty() ? 0 : found->second.front();
}

std::vector<std::int64_t> list_in(const RunState& state, const char* name) {
  const auto found = state.integers.find(name);
  return found == state.integers.end() ? std::vector<std::int64_t>() : found->second;
}

}  // namespace

const char* name_of(Divergence::Action action) {
  switch (action) {
    case Divergence::Action::update: return "update";
    case Divergence::Action::nonfinite: return "nonfinite";
    case Divergence::Action::skip: return "skip";
    case Divergence::Action::rewind: return "rewind";
    case Divergence::Action::stop: return "stop";
  }
  return "?";
}

double LossWindow::median() const { return upper_median({losses_.begin(), losses_.end()}); }

std::optional<double> LossWindow::zscore(double loss) const {
  if (losses_.size() * 2 < size_) return std::nullopt;
  const double middle = median();
  std::vector<double> distances;
  for (const double past : losses_) distances.push_back(std::abs(past - middle));
  const double deviation = std::max(deviations_of_a_normal * upper_median(std::move(distances)),
                                    least_share * std::abs(middle));
  return (loss - middle) / deviation;
}

void LossWindow::add(double loss) {
  losses_.push_back(loss);
  while (losses_.size() > size_) losses_.pop_front();
}

Divergence::Divergence(const JobConfig& job, PassedOver past)
    : settings_(job.divergence),
      global_batch_(job.train.global_batch),
      passed_(std::move(past)),
      window_(static_cast<std::size_t>(job.divergence.spike_window)) {}

void Divergence::put(RunState& state) const {
  state.numbers["loss_window"] = {window_.losses().begin(), window_.losses().end()};
  state.integers["spikes_skipped"] = skips_;
  state.integers["passed_over"] = passed_.flat();
  state.integers["skipped_in_row"] = {in_row_};
  state.integers["updates_skipped"] = {nonfinite_, skipped_};
  state.integers["updates_overflowed"] = {overflowed_};
}

void Divergence::restore(const RunState& state) {
  if (const auto losses = state.numbers.find("loss_window"); losses != state.numbers.end()) {
    for (const double loss : losses->second) window_.add(loss);
  }
  skips_ = list_in(state, "spikes_skipped");
  if (const auto flat = list_in(state, "passed_over"); flat.size() % 2 == 0) passed_.add(flat);
  in_row_ = number_in(state, "skipped_in_row");
  if (const auto both = list_in(state, "updates_skipped"); both.size() == 2) {
    nonfinite_ = both[0];
    skipped_ = both[1];
  }
  overflowed_ = number_in(state, "updates_overflowed");
}

Divergence::Counts Divergence::counts() const { return {nonfinite_, overflowed_, skipped_, std::ssize(passed_.spikes)}; }

Divergence::Action Divergence::judge(std::int64_t step, std::int64_t position, double loss, double gradient_norm) {
  if (!std::isfinite(gradient_norm) || !std::isfinite(loss)) return not_finite();
  in_row_ = 0;
  const auto zscore = settings_.spike_zscore > 0 ? window_.zscore(loss) : std::nullopt;
  if (zscore && *zscore > settings_.spike_zscore) return spike(step, position, loss, *zscore);
  window_.add(loss);
  return Action::update;
}

Divergence::Action Divergence::overflow(double loss_scale) {
  ++overflowed_;
  sentence_ = fmt::format("the gradient overflows at a loss scale of {}: the step changes nothing, and the scale is halved",
                          loss_scale);
  return Action::nonfinite;
}

Divergence::Action Divergence::not_finite() {
  ++in_row_;
  ++nonfinite_;
  ended_ = in_row_ >= nonfinite_in_row;
  sentence_ = in_row_ == 1 ? "the gradient or the loss is not finite: the step changes nothing"
                           : fmt::format("{} steps in a row had gradients that are not finite", in_row_);
  return Action::nonfinite;
}

Divergence::Action Divergence::spike(std::int64_t step, std::int64_t position, double loss, double zscore) {
  const auto what = fmt::format("the loss of step {}, {:.4f}, is {:.1f} deviations above the median of the {} before, "
                                "{:.4f} (divergence.spike_zscore = {})",
                                step, loss, zscore, window_.losses().size(), window_.median(), settings_.spike_zscore);
  std::erase_if(skips_, [&](std::int64_t past) { return past <= step - budget_steps; });
  const auto rewinds = std::count_if(passed_.spikes.begin(), passed_.spikes.end(),
                                     [&](std::int64_t past) { return past > step - budget_steps; });
  const auto spent = std::ssize(skips_) + rewinds;
  if (settings_.spike_policy == "stop" || spent >= settings_.spike_budget) {
    ended_ = true;
    const auto why = settings_.spike_policy == "stop"
                         ? std::string("divergence.spike_policy = \"stop\"")
                         : fmt::format("divergence.spike_budget = {} is spent", settings_.spike_budget);
    sentence_ = fmt::format("{}; the run stops, for {}", what, why);
    verdict_ = Verdict{.stop = true, .budgeted = true, .not_after = step - 1, .reason = sentence_};
    return Action::stop;
  }
  if (settings_.spike_policy == "skip") {
    skips_.push_back(step);
    ++skipped_;
    sentence_ = fmt::format("{}; the step changes nothing", what);
    return Action::skip;
  }
  ended_ = true;
  const auto from = passed_.back(position, (settings_.pass_over_steps - 1) * global_batch_);
  const auto to = position + global_batch_;
  passed_.add(from, to);
  passed_.spikes.push_back(step);
  sentence_ = fmt::format("{}; the run goes back before step {} and passes over sequences {} to {}", what,
                          std::max<std::int64_t>(1, step - settings_.pass_over_steps + 1), from, to - 1);
  verdict_ = Verdict{.stop = false,
                     .budgeted = true,
                     .not_after = std::max<std::int64_t>(0, step - settings_.pass_over_steps),
                     .reason = sentence_};
  return Action::rewind;
}

}  // namespace smlp
