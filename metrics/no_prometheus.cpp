// A build without prometheus-cpp: nothing is served, metrics.jsonl is all there is.
#include <limits>
#include <nlohmann/json.hpp>

#include "metrics/exporter.h"
#include "metrics/step_line.h"

namespace smlp {

struct RunMetrics::Families {
  RunIdentity identity;
  RunTotals totals{.checkpoint_step = std::numeric_limits<double>::quiet_NaN()};
};

RunMetrics::RunMetrics(const RunIdentity& identity) : families_(std::make_unique<Families>(Families{identity})) {}
RunMetrics::~RunMetrics() = default;

void RunMetrics::resume(std::int64_t steps, std::int64_t tokens) {
  families_->totals.steps = static_cast<double>(steps);
  families_->totals.tokens = static_cast<double>(tokens);
}

void RunMetrics::publish(const StepReport& report) {
  families_->totals.steps += 1;
  families_->totals.tokens += static_cast<double>(report.tokens);
}

void RunMetrics::checkpoint_stalled(double seconds) { families_->totals.checkpoint_stall_seconds += seconds; }

void RunMetrics::checkpoint_published(std::string_view tier, std::int64_t step, double, std::int64_t, double unix_time) {
  checkpoint_found(tier, step, unix_time);
}

void RunMetrics::checkpoint_failed(std::string_view tier) {
  if (tier == "shared") families_->totals.checkpoint_failures += 1;
}

void RunMetrics::checkpoint_found(std::string_view tier, std::int64_t step, double) {
  if (tier == "shared") families_->totals.checkpoint_step = static_cast<double>(step);
}

void RunMetrics::evaluated(const EvaluationReport&) {}
void RunMetrics::checkpoint_interval(std::string_view, double) {}
void RunMetrics::restarts(std::string_view, std::int64_t) {}
void RunMetrics::skipped_updates(std::string_view, std::int64_t) {}
void RunMetrics::spikes(std::string_view, std::int64_t) {}
void RunMetrics::goodput(std::string_view, double) {}
std::string RunMetrics::text() const { return ""; }
int RunMetrics::rank() const { return families_->identity.rank; }

nlohmann::json RunMetrics::to_json(const StepReport& report, double unix_time) const {
  return step_line(report, families_->identity.attempt, unix_time, families_->totals);
}

struct Exporter::Server {};
Exporter::Exporter(const std::string&, const RunMetrics&, std::unique_ptr<GpuMeter>) {}
Exporter::~Exporter() = default;

}  // namespace smlp
