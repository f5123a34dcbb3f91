#include "worker/save_interval.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/attempt_end.h"
#include "core/clock.h"
#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/statistics.h"

namespace smlp {

namespace {

constexpr std::array both = {Tier::shared, Tier::local};
constexpr double least_change = 0.1;

}  // namespace

double best_interval(double cost_seconds, double seconds_between_failures) {
  return std::sqrt(2 * cost_seconds * seconds_between_failures);
}

double FailureRate::seconds_between() const {
  return (seconds_up + assumed_seconds) / static_cast<double>(failures + 1);
}

std::int64_t count_failures(const RunDirectory& run) {
  std::int64_t failures = 0;
  read_json_lines(run.attempts(), [&](const nlohmann::json& line) {
    const auto code = integer_in(line, "exit_code");
    if (code && is_failure(*code)) ++failures;
  });
  return failures;
}

std::optional<double> SaveIntervals::OfTier::cost() const {
  return costs.empty() ? recalled_cost : std::optional(upper_median(costs));
}

std::optional<double> SaveIntervals::OfTier::save_seconds() const {
  return durations.empty() ? recalled_duration : std::optional(upper_median(durations));
}

void SaveIntervals::begun(Tier tier, double stall_seconds) {
  auto& one = of(tier);
  one.under_way = true;
  one.stall = stall_seconds;
  one.excess = one.duration = 0;
}

void SaveIntervals::step(double seconds) {
  const bool alone = std::ranges::none_of(both, [&](Tier tier) { return of(tier).under_way; });
  if (alone) return keep_newest(undisturbed_, seconds, baseline_window);
  const double usual = undisturbed_.size() >= enough ? upper_median(undisturbed_) : seconds;
  // Where saves of both tiers are under way the slower one is the likelier reason.
  of(of(Tier::shared).under_way ? Tier::shared : Tier::local).excess += seconds - usual;
  for (const auto tier : both) {
    if (of(tier).under_way) of(tier).duration += seconds;
  }
}

void SaveIntervals::over(Tier tier) {
  auto& one = of(tier);
  if (!one.under_way) return;
  one.under_way = false;
  keep_newest(one.costs, one.stall + std::max(0.0, one.excess), window);
  keep_newest(one.durations, one.stall + one.duration, window);
}

std::vector<Tier> SaveIntervals::choose(const FailureRate& rate) {
  std::vector<Tier> moved;
  for (const auto tier : both) {
    auto& one = of(tier);
    const auto cost = one.cost();
    const double best = cost ? best_interval(*cost, rate.seconds_between()) : 0;
    // Half of the time at least passes without a save: else nobody would know what steps take by themselves.
    one.interval = std::clamp(std::max(best, 2 * one.save_seconds().value_or(0)), least_, most_);
    if (!cost || std::abs(one.interval - one.said) <= least_change * one.said) continue;
    one.said = one.interval;
    moved.push_back(tier);
  }
  return moved;
}

std::string SaveIntervals::sentence(Tier tier, const FailureRate& rate) const {
  const auto& one = of(tier);
  return fmt::format("{} saves come every {:.1f} s: one costs {:.3f} s and takes {:.1f} s, and the run fails once in {} "
                     "({} failures in {})",
                     name_of(tier), one.interval, one.cost().value_or(0), one.save_seconds().value_or(0),
                     duration_text(rate.seconds_between()), rate.failures, duration_text(rate.seconds_up));
}

void SaveIntervals::recall(const std::string& text) {
  const auto json = parse_json(text);
  if (!json.is_object()) return;
  for (const auto tier : both) {
    const auto found = json.find(name_of(tier));
    if (found == json.end() || !found->is_object()) continue;
    const auto take = [&](const char* key, auto& to) {
      if (const auto seconds = number_in(*found, key); seconds && is_duration(*seconds)) to = *seconds;
    };
    take("cost_seconds", of(tier).recalled_cost);
    take("save_seconds", of(tier).recalled_duration);
    take("interval_seconds", of(tier).said);
  }
}

std::string SaveIntervals::text() const {
  auto json = nlohmann::json::object();
  for (const auto tier : both) {
    const auto& one = of(tier);
    if (!one.cost()) continue;
    json[name_of(tier)] = {{"cost_seconds", *one.cost()},
                           {"save_seconds", one.save_seconds().value_or(0)},
                           {"interval_seconds", one.interval}};
  }
  return json_text(json, 2) + "\n";
}

}  // namespace smlp
