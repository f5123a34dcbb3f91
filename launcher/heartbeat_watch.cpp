#include "launcher/heartbeat_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "launcher/processes.h"

namespace smlp {

namespace {

constexpr double longest_count_seconds = 1;  // what one look adds at most

}  // namespace

std::optional<Beat> parse_beat(const std::string& line) {
  std::istringstream words(line);
  Beat beat;
  double progressed = 0;
  words >> beat.step >> beat.section >> beat.sequence >> progressed >> beat.pid >> beat.host >> beat.limit_seconds;
  return words ? std::optional(beat) : std::nullopt;
}

HeartbeatWatch::HeartbeatWatch(RunDirectory run, std::int64_t ranks, WatchLimits limits)
    : run_(std::move(run)),
      limits_(limits),
      beats_(static_cast<std::size_t>(ranks)),
      quiet_seconds_(static_cast<std::size_t>(ranks), 0.0) {}

void HeartbeatWatch::read() {
  for (std::size_t rank = 0; rank < beats_.size(); ++rank) {
    std::ifstream file(run_.heartbeat(static_cast<int>(rank)));
    std::string line;
    if (!file || !std::getline(file, line)) continue;
    auto beat = parse_beat(line);
    if (!beat) continue;
    if (!beats_[rank] || beats_[rank]->sequence != beat->sequence) quiet_seconds_[rank] = 0;
    beats_[rank] = std::move(beat);
  }
}

std::optional<std::string> HeartbeatWatch::look(double now) {
  const double passed = looked_ < 0 ? 0 : std::min(now - looked_, longest_count_seconds);
  looked_ = now;
  for (auto& quiet : quiet_seconds_) quiet += passed;
  read();
  for (std::size_t rank = 0; rank < beats_.size(); ++rank) {
    const auto& beat = beats_[rank];
    const double limit = beat ? beat->limit_seconds + limits_.grace_seconds : limits_.start_seconds;
    if (quiet_seconds_[rank] <= limit) continue;
    if (!beat) {
      return fmt::format("rank {} gave no sign of life within {:.0f} s of the start", rank, limits_.start_seconds);
    }
    const auto behind = last_rank().value_or(static_cast<int>(rank));
    const auto& last = *beats_[static_cast<std::size_t>(behind)];
    return fmt::format("rank {} makes no progress: in section '{}' of step {} for {:.1f} s, {:.1f} s are allowed{}",
                       behind, last.section, last.step, quiet_seconds_[static_cast<std::size_t>(behind)],
                       last.limit_seconds,
                       beats_.size() > 1 ? fmt::format(" (process {} on {})", last.pid, last.host) : "");
  }
  return std::nullopt;
}

bool HeartbeatWatch::all_present() const {
  return std::all_of(beats_.begin(), beats_.end(), [](const auto& beat) { return beat.has_value(); });
}

bool HeartbeatWatch::past_start() const {
  return std::any_of(beats_.begin(), beats_.end(), [](const auto& beat) { return beat && beat->section != "start"; });
}

std::optional<int> HeartbeatWatch::last_rank() const {
  if (!all_present()) return std::nullopt;
  const auto by_sequence = [](const auto& a, const auto& b) { return a->sequence < b->sequence; };
  const auto [least, most] = std::minmax_element(beats_.begin(), beats_.end(), by_sequence);
  if ((*least)->sequence == (*most)->sequence) return std::nullopt;
  return static_cast<int>(least - beats_.begin());
}

std::vector<pid_t> HeartbeatWatch::pids_here() const {
  static const auto here = host_name();
  std::vector<pid_t> pids;
  for (const auto& beat : beats_) {
    if (beat && beat->host == here && beat->pid > 1) pids.push_back(beat->pid);
  }
  return pids;
}

}  // namespace smlp
