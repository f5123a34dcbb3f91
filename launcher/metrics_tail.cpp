#include "launcher/metrics_tail.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace smlp {

namespace {

constexpr std::size_t most_seen = 100000;

template <class T>
void take_number(const nlohmann::json& line, const char* key, std::optional<T>& out) {
  const auto found = line.find(key);
  if (found != line.end() && found->is_number()) out = found->get<T>();
}

}  // namespace

MetricsTail::MetricsTail(std::filesystem::path file) : file_(std::move(file)) {
  std::error_code absent;
  const auto size = std::filesystem::file_size(file_, absent);
  if (!absent) offset_ = size;
}

void MetricsTail::begin_attempt(double now) {
  newest_.reset();
  first_step_.reset();
  seen_.clear();
  rest_.clear();
  began_ = now;
}

bool MetricsTail::read(double now) {
  std::error_code absent;
  const auto size = std::filesystem::file_size(file_, absent);
  if (absent || size <= offset_) return false;
  std::ifstream file(file_, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset_));
  std::string text(size - offset_, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  offset_ += text.size();
  rest_ += text;
  const auto before = newest_ ? newest_->step : -1;
  std::size_t start = 0;
  for (auto end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n', start)) {
    take(rest_.substr(start, end - start), now);
    start = end + 1;
  }
  rest_.erase(0, start);
  return newest_ && newest_->step != before;
}

void MetricsTail::take(const std::string& text, double now) {
  const auto line = nlohmann::json::parse(text, nullptr, false);
  if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) return;
  StepFacts facts{.step = line["step"].get<std::int64_t>()};
  take_number(line, "loss", facts.loss);
  take_number(line, "validation_loss", facts.validation_loss);
  take_number(line, "tokens_per_second", facts.tokens_per_second);
  take_number(line, "flops_share", facts.flops_share);
  take_number(line, "expert_balance", facts.expert_balance);
  take_number(line, "checkpoint_last_step", facts.checkpoint_step);
  take_number(line, "checkpoint_last_timestamp_seconds", facts.checkpoint_time);
  take_number(line, "local_checkpoint_last_step", facts.local_step);
  if (!facts.validation_loss && newest_) facts.validation_loss = newest_->validation_loss;
  if (!first_step_) first_step_ = facts.step;
  const auto kept_from = facts.checkpoint_step.value_or(0);
  while (!seen_.empty() && (seen_.front().step < kept_from || seen_.size() >= most_seen)) seen_.pop_front();
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
