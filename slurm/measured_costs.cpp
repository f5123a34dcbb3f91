#include "slurm/measured_costs.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/json_lines.h"
#include "core/statistics.h"

namespace smlp {

namespace {

constexpr std::int64_t metrics_tail_bytes = 1 << 20, events_tail_bytes = 1 << 20;
constexpr std::size_t newest_steps = 200, newest_saves = 10;
constexpr double slurm_delay_seconds = 30;  // slurmctld looks at time limits so often
constexpr double longest_warning_seconds = 65535;

void keep_duration(std::vector<double>& values, std::optional<double> seconds, std::size_t count) {
  if (seconds && is_duration(*seconds)) keep_newest(values, *seconds, count);
}

}  // namespace

MeasuredCosts measured_costs(const RunDirectory& run) {
  std::vector<double> steps, saves;
  read_json_lines(
      run.metrics(),
      [&](const nlohmann::json& line) {
        keep_duration(steps, number_in(line, "step_seconds"), newest_steps);
      },
      metrics_tail_bytes);
  read_json_lines(
      run.events(),
      [&](const nlohmann::json& line) {
        if (text_in(line, "event") != "checkpoint_published") return;
        keep_duration(saves, number_in(line, "seconds"), newest_saves);
      },
      events_tail_bytes);
  MeasuredCosts costs;
  if (!steps.empty()) costs.step_seconds = upper_median(steps);
  if (!saves.empty()) costs.save_seconds = *std::max_element(saves.begin(), saves.end());
  return costs;
}

std::int64_t warning_seconds(std::int64_t floor, const MeasuredCosts& costs) {
  if (!costs.step_seconds && !costs.save_seconds) return floor;
  const double needed = slurm_delay_seconds + 3 * (costs.step_seconds.value_or(0) + costs.save_seconds.value_or(0));
  return std::max(floor, static_cast<std::int64_t>(std::ceil(std::min(needed, longest_warning_seconds))));
}

}  // namespace smlp
