#include "launcher/metrics_tail.h"

#include <utility>

#include "core/run_directory.h"

namespace smlp {

namespace {

constexpr std::size_t most_seen = 100000;

}  // namespace

MetricsTail::MetricsTail(std::filesystem::path file) : file_(std::move(file)) { file_.pass_over_what_is_there(); }

void MetricsTail::begin_attempt(int attempt, double now) {
  attempt_ = attempt;
  newest_.reset();
  first_step_.reset();
  seen_.clear();
  checkpoint_before_ = 0;
  began_ = now;
}

bool MetricsTail::read(double now) {
  const auto before = newest_ ? newest_->step : -1;
  file_.read([&](const nlohmann::json& line) { take(line, now); });
  return newest_ && newest_->step != before;
}

void MetricsTail::take(const nlohmann::json& line, double now) {
  const auto step = integer_in(line, "step");
  if (!step || attempt_in(line) != attempt_) return;
  StepFacts facts{.step = *step,
                  .loss = number_in(line, "loss"),
                  .validation_loss = number_in(line, "validation_loss"),
                  .tokens_per_second = number_in(line, "tokens_per_second"),
                  .flops_share = number_in(line, "flops_share"),
                  .expert_balance = number_in(line, "expert_balance"),
                  .checkpoint_step = integer_in(line, "checkpoint_last_step"),
                  .checkpoint_time = number_in(line, "checkpoint_last_timestamp_seconds"),
                  .local_step = integer_in(line, "local_checkpoint_last_step")};
  if (!facts.validation_loss && newest_) facts.validation_loss = newest_->validation_loss;
  if (!first_step_) first_step_ = facts.step;
  if (newest_ && newest_->checkpoint_step != facts.checkpoint_step) checkpoint_before_ = newest_->checkpoint_step.value_or(0);
  while (!seen_.empty() && (seen_.front().step < checkpoint_before_ || seen_.size() >= most_seen)) seen_.pop_front();
  seen_.push_back({facts.step, now});
  newest_ = facts;
}

double MetricsTail::seconds_since(std::int64_t checkpoint_step) const {
  if (seen_.empty()) return 0;
  double from = began_;
  for (const auto& seen : seen_) {
    if (seen.step > checkpoint_step) break;
    from = seen.at;
  }
  return seen_.back().at - from;
}

}  // namespace smlp
