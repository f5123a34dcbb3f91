#include "core/goodput.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/json_lines.h"

namespace smlp {

namespace {
constexpr double wrong_clock_seconds = 300;  // hosts are less apart: munge would refuse their words
constexpr std::int64_t tail_bytes = 1 << 20;  // some lines of metrics.jsonl, also with hundreds of experts
}

void Goodput::pass(double now, Spent phase) {
  seconds_[static_cast<std::size_t>(phase)] += std::max(0.0, now - time_);
  time_ = std::max(now, time_);
}

void Goodput::step_done(double now, std::int64_t step, const StepSeconds& took, bool first) {
  if (first) pass(now - took.whole - took.evaluation, Spent::restart);
  if (step <= highest_step_) {
    pass(now, Spent::lost_work);
    return;
  }
  highest_step_ = step;
  const auto part = [&](double seconds, Spent phase) { pass(std::min(now, time_ + std::max(0.0, seconds)), phase); };
  part(took.data, Spent::data_stall);
  part(took.exchange, Spent::exchange_wait);
  part(took.checkpoint, Spent::checkpoint_stall);
  pass(now, Spent::productive);
}

double Goodput::total() const {
  double sum = 0;
  for (const double seconds : seconds_) sum += seconds;
  return sum;
}

nlohmann::json Goodput::seconds_json() const {
  nlohmann::json json = nlohmann::json::object();
  for (std::size_t i = 0; i < spent_count; ++i) json[spent_names[i]] = std::round(seconds_[i] * 1000) / 1000;
  return json;
}

void Goodput::write_into(nlohmann::json& line) const {
  line["time"] = time_;
  auto& seconds = line["goodput_seconds_total"] = nlohmann::json::object();  // whole: the next attempt's counters begin there
  for (std::size_t i = 0; i < spent_count; ++i) seconds[spent_names[i]] = seconds_[i];
  line["highest_step"] = highest_step_;
}

std::optional<Goodput> Goodput::from_line(const nlohmann::json& line) {
  const auto seconds = line.find("goodput_seconds_total");
  const auto time = number_in(line, "time");
  const auto step = integer_in(line, "highest_step");
  if (seconds == line.end() || !seconds->is_object() || !time || !step) return std::nullopt;
  Goodput found(*time);
  found.highest_step_ = *step;
  for (std::size_t i = 0; i < spent_count; ++i) {
    const auto value = number_in(*seconds, spent_names[i]);
    if (!value || *value < 0) return std::nullopt;
    found.seconds_[i] = *value;
  }
  return found;
}

std::optional<Goodput> read_goodput(const RunDirectory& run) {
  std::optional<Goodput> newest;
  const auto take = [&](const nlohmann::json& line) {
    auto found = Goodput::from_line(line);
    // By what they cover, not by their times: those may be two hosts'.
    if (found && (!newest || found->total() >= newest->total())) newest = std::move(found);
  };
  read_json_lines(run.ledger(), take, tail_bytes);
  read_json_lines(run.metrics(), take, tail_bytes);
  if (newest && newest->time() > unix_seconds() + wrong_clock_seconds) newest->go_on_from(unix_seconds());
  return newest;
}

}  // namespace smlp
