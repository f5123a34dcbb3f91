#include "worker/hang_limits.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/statistics.h"

namespace smlp {

namespace {

constexpr std::array names = {"start", "data", "exchange", "step", "checkpoint", "evaluation", "finish"};
static_assert(names.size() == section_count);
constexpr std::array learned = {Section::data, Section::exchange, Section::step, Section::checkpoint,
                                Section::evaluation};

double default_seconds(Section section) {
  return section == Section::checkpoint || section == Section::finish ? 600 : 300;
}

bool shares_disks(Section section) {
  return section == Section::start || section == Section::checkpoint || section == Section::finish;
}

}  // namespace

const char* name_of(Section section) { return names[static_cast<std::size_t>(section)]; }

void HangLimits::took(Section section, double seconds) {
  auto& recent = of(section);
  if (recent.size() >= (section == Section::start ? starts_kept : window)) recent.erase(recent.begin());
  recent.push_back(seconds);
}

bool HangLimits::knows_steps() const { return of(Section::step).size() >= enough; }

std::optional<double> HangLimits::median(Section section) const {
  const auto& recent = of(section);
  if (recent.size() >= (section == Section::start ? 1 : enough)) return upper_median(recent);
  const auto recalled = recalled_[static_cast<std::size_t>(section)];
  const double slower = std::max(1.0, static_cast<double>(recalled_ranks_) / static_cast<double>(ranks_));
  return recalled ? std::optional(*recalled * slower) : std::nullopt;
}

double HangLimits::own_seconds(Section section) const {
  const double floor = settings_.floor_seconds * (shares_disks(section) ? disk_floors : 1);
  const auto usual = median(section);
  const double seconds = usual ? settings_.factor * *usual : default_seconds(section);
  return std::max(floor, std::min(seconds, settings_.ceiling_seconds));
}

double HangLimits::seconds(Section section) const {
  double limit = own_seconds(section);
  const bool in_step = section == Section::data || section == Section::exchange || section == Section::step;
  if (in_step && of(Section::step).empty()) limit = std::max(limit, own_seconds(Section::start));
  if (section == Section::exchange) {
    limit = std::max({limit, seconds(Section::data), seconds(Section::step)});
  }
  return limit;
}

void HangLimits::on_ranks(int ranks) { ranks_ = std::max(ranks, 1); }

void HangLimits::recall(const std::string& text) {
  const auto json = parse_json(text);
  if (!json.is_object()) return;
  ranks_ = recalled_ranks_ = std::max<std::int64_t>(integer_in(json, "ranks").value_or(1), 1);
  for (const auto section : learned) {
    const auto seconds = number_in(json, name_of(section));
    if (seconds && is_duration(*seconds)) recalled_[static_cast<std::size_t>(section)] = *seconds;
  }
  const auto starts = json.find("starts");
  if (starts == json.end() || !starts->is_array()) return;
  for (const auto& start : *starts) {
    if (start.is_number() && is_duration(start.get<double>())) took(Section::start, start.get<double>());
  }
}

std::string HangLimits::text() const {
  nlohmann::json json = {{"ranks", ranks_}, {"starts", of(Section::start)}};
  for (const auto section : learned) {
    if (const auto usual = median(section)) json[name_of(section)] = *usual;
  }
  return json_text(json, 2) + "\n";
}

}  // namespace smlp
