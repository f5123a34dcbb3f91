#include "launcher/heartbeat_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <tuple>

#include "core/host_name.h"
#include "launcher/processes.h"

namespace smlp {

namespace {

constexpr double longest_count_seconds = 1;  // what one look adds at most
constexpr double silence_seconds = 1.5;      // a rank that writes twice a second is stopped, or its node cut off

}  // namespace

std::optional<Beat> parse_beat(const std::string& line) {
  std::istringstream words(line);
  Beat beat;
  double progressed = 0;
  words >> beat.step >> beat.section >> beat.sequence >> progressed >> beat.pid >> beat.host >> beat.limit_seconds;
  if (!words) return std::nullopt;
  words >> beat.attempt >> beat.pulse >> beat.collectives >> beat.inside >> beat.call >> beat.block;
  if (!words) return std::nullopt;
  for (std::string word; words >> word;) {
    if (word == "disk") words >> beat.disk_seconds >> beat.disk_limit_seconds;
    beat.gives_up = word == "gives_up";
  }
  return beat;
}

HeartbeatWatch::HeartbeatWatch(RunDirectory run, int attempt, std::int64_t ranks, WatchLimits limits)
    : run_(std::move(run)),
      attempt_(attempt),
      limits_(limits),
      beats_(static_cast<std::size_t>(ranks)),
      quiet_seconds_(static_cast<std::size_t>(ranks), 0.0),
      silent_seconds_(static_cast<std::size_t>(ranks), 0.0) {}

std::vector<std::optional<Beat>> HeartbeatWatch::newest() const {
  std::vector<std::optional<Beat>> found(beats_.size());
  for (std::size_t rank = 0; rank < found.size(); ++rank) {
    std::ifstream file(run_.heartbeat(static_cast<int>(rank)));
    std::string line;
    if (file && std::getline(file, line)) found[rank] = parse_beat(line);
    if (found[rank] && found[rank]->attempt != attempt_) found[rank].reset();
  }
  return found;
}

void HeartbeatWatch::read() {
  auto found = newest();
  given_up_ = std::any_of(found.begin(), found.end(), [](const auto& beat) { return beat && beat->gives_up; });
  for (std::size_t rank = 0; rank < found.size() && !left_by_disk_; ++rank) {
    if (found[rank] && found[rank]->left_by_disk()) left_by_disk_ = static_cast<int>(rank);
  }
  if (given_up_ && all_present()) return;
  for (std::size_t rank = 0; rank < beats_.size(); ++rank) {
    auto& beat = found[rank];
    if (!beat) continue;
    const auto& before = beats_[rank];
    const auto moved = [&](auto member) { return !before || (*before).*member != (*beat).*member; };
    if (moved(&Beat::sequence) || moved(&Beat::collectives)) quiet_seconds_[rank] = 0;
    if (moved(&Beat::pulse) || moved(&Beat::pid)) silent_seconds_[rank] = 0;
    beats_[rank] = std::move(beat);
  }
}

std::optional<std::string> HeartbeatWatch::look(double now) {
  const double passed = looked_ < 0 ? 0 : std::min(now - looked_, longest_count_seconds);
  looked_ = now;
  for (auto& quiet : quiet_seconds_) quiet += passed;
  if (!given_up_) {
    for (auto& silent : silent_seconds_) silent += passed;
  }
  read();
  for (std::size_t rank = 0; rank < beats_.size(); ++rank) {
    const auto& beat = beats_[rank];
    const double limit = beat ? beat->limit_seconds + limits_.grace_seconds : limits_.start_seconds;
    if (quiet_seconds_[rank] <= limit) continue;
    if (!beat) {
      return fmt::format("rank {} gave no sign of life within {:.0f} s of the start", rank, limits_.start_seconds);
    }
    const auto behind = last_rank().value_or(static_cast<int>(rank));
    const auto at = static_cast<std::size_t>(behind);
    return fmt::format("rank {} makes no progress: {}, for {:.1f} s, {:.1f} s are allowed", behind, describe(behind),
                       quiet_seconds_[at], beats_[at]->limit_seconds);
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
  if (left_by_disk_) return left_by_disk_;
  const auto [liveliest, stillest] = std::minmax_element(silent_seconds_.begin(), silent_seconds_.end());
  if (*stillest > silence_seconds && *liveliest <= silence_seconds) {
    return static_cast<int>(stillest - silent_seconds_.begin());
  }
  const auto place = [](const auto& beat) { return std::tuple(beat->collectives, beat->inside, beat->sequence); };
  const auto by_place = [&](const auto& a, const auto& b) { return place(a) < place(b); };
  const auto [least, most] = std::minmax_element(beats_.begin(), beats_.end(), by_place);
  if (place(*least) == place(*most)) return std::nullopt;
  return static_cast<int>(least - beats_.begin());
}

std::string HeartbeatWatch::describe(int rank) const {
  const auto& beat = *beats_[static_cast<std::size_t>(rank)];
  const double silent = silent_seconds_[static_cast<std::size_t>(rank)];
  const bool disk = left_by_disk_ == rank;
  return fmt::format("{}{}in section '{}' of step {}, block {}, {} collectives begun, {} {} (process {} on {})",
                     silent > silence_seconds ? fmt::format("stopped or cut off, silent for {:.1f} s, ", silent) : "",
                     disk ? "its part of a save gets no answer from the disk, the loop is " : "", beat.section, beat.step,
                     beat.block, beat.collectives, beat.inside ? "inside" : "the last", beat.call, beat.pid, beat.host);
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
