#include "launcher/run_history.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/tell.h"

namespace smlp {

namespace {

constexpr std::size_t most_waiting = 1000;  // lines, on a disk that stays full
constexpr std::int64_t newest_steps_bytes = 4 << 20;

}  // namespace

std::optional<nlohmann::json> RunHistory::last_attempt() const {
  std::optional<nlohmann::json> last;
  read_json_lines(run_.attempts(), [&](const nlohmann::json& line) {
    if (attempt_in(line)) last = line;
  });
  return last;
}

std::optional<int> RunHistory::last_to_choose() const {
  std::optional<int> newest;
  read_json_lines(run_.events(), [&](const nlohmann::json& line) {
    const auto attempt = attempt_in(line);
    if (attempt && text_in(line, "event") == "start") newest = std::max(newest.value_or(0), *attempt);
  });
  return newest;
}

std::optional<std::int64_t> RunHistory::step_of_start(int attempt) const {
  std::optional<std::int64_t> step;
  read_json_lines(run_.events(), [&](const nlohmann::json& line) {
    if (attempt_in(line) == attempt && text_in(line, "event") == "start") step = integer_in(line, "step");
  });
  return step;
}

std::optional<std::int64_t> RunHistory::chosen_by(int attempt) const {
  const auto step = step_of_start(attempt);
  return step > 0 ? step : std::nullopt;
}

std::string RunHistory::cause_of(int attempt) const {
  std::string cause;
  read_json_lines(run_.attempts(), [&](const nlohmann::json& line) {
    if (attempt_in(line) == attempt) cause = text_in(line, "cause");
  });
  return cause;
}

// A disk that fails to show it for a moment ends no launcher: the ranks read it, too, and leave where they can't.
int RunHistory::fence() const {
  try {
    return attempt_in_charge(run_.checkpoints());
  } catch (const Error& error) {
    tell("{}; the run goes on by its own count of attempts", error.what());
    return 0;
  }
}

int RunHistory::begin_attempt() {
  write_waiting();
  const auto last = last_attempt();
  const int recorded = std::max(newest_ended_, last ? attempt_in(*last).value_or(0) : 0);
  const int seen = newest_attempt(run_);
  if (seen > recorded) {
    AttemptRecord lost{.attempt = seen, .ended = utc_time(), .exit_code = 137, .cause = "launcher"};
    // A long run's file of steps is gigabytes, and the allocation would wait for its first lines.
    read_json_lines(
        run_.metrics(),
        [&](const nlohmann::json& line) {
          if (attempt_in(line) != seen) return;
          lost.last_step = integer_in(line, "step");
          if (!lost.first_step) lost.first_step = lost.last_step;
        },
        newest_steps_bytes);
    const auto begun_at = step_of_start(seen);
    if (begun_at && lost.first_step) lost.first_step = std::min(*lost.first_step, *begun_at + 1);
    lost.from_checkpoint = chosen_by(seen);
    lost.reason = "the launcher of this attempt ended without a word: it was killed, or the machine went down";
    append(lost);
    event("attempt_lost", seen, newest_step(), lost.reason);
  }
  return std::max({seen, recorded, fence()}) + 1;
}

void RunHistory::append(const AttemptRecord& r) {
  newest_ended_ = std::max(newest_ended_, r.attempt);
  append_safely(run_.attempts(), {{"attempt", r.attempt},
                                  {"ranks", r.ranks},
                                  {"threads", r.threads},
                                  {"expert_ranks", r.expert_ranks},
                                  {"nodes", r.nodes},
                                  {"host", r.host},
                                  {"started", r.started},
                                  {"ended", r.ended},
                                  {"from_checkpoint", or_null(r.from_checkpoint)},
                                  {"first_step", or_null(r.first_step)},
                                  {"last_step", or_null(r.last_step)},
                                  {"exit_code", r.exit_code},
                                  {"cause", r.cause},
                                  {"reason", r.reason}});
}

std::int64_t RunHistory::count_events(const std::string& name, const std::string& detail) const {
  std::int64_t count = 0;
  read_json_lines(run_.events(), [&](const nlohmann::json& line) {
    count += text_in(line, "event") == name && (detail.empty() || text_in(line, "detail") == detail);
  });
  return count;
}

void RunHistory::event(const std::string& name, int attempt, std::optional<std::int64_t> step,
                       const std::string& detail) {
  nlohmann::json line = {{"time", utc_time()}, {"event", name}, {"attempt", attempt}, {"detail", detail}};
  if (step) line["step"] = *step;
  append_safely(run_.events(), line);
}

void RunHistory::append_safely(const std::filesystem::path& file, const nlohmann::json& line) {
  waiting_.emplace_back(file, json_text(line));
  write_waiting();
}

// Lines of one file stay in order; a file that can't be written does not hold up the other.
void RunHistory::write_waiting() {
  std::set<std::filesystem::path> stuck;
  std::string why;
  std::erase_if(waiting_, [&](const auto& line) {
    if (stuck.contains(line.first)) return false;
    try {
      append_line(line.first, line.second);
      return true;
    } catch (const Error& error) {
      stuck.insert(line.first);
      why = error.what();
      return false;
    }
  });
  if (!why.empty() && !complained_) tell("{}; the run goes on", why);
  complained_ = !why.empty();
  if (waiting_.size() > most_waiting) waiting_.pop_front();
}

std::vector<std::int64_t> RunHistory::published_steps() const {
  std::error_code failed, unknown;
  const auto entries = entries_of(run_.checkpoints(), failed);
  if (failed) return published_;
  published_.clear();
  for (const auto& entry : entries) {
    const auto step = step_of_checkpoint(entry.filename().string());
    if (step && std::filesystem::exists(run_.manifest(*step), unknown)) published_.push_back(*step);
  }
  std::sort(published_.begin(), published_.end());
  return published_;
}

std::optional<std::int64_t> RunHistory::newest_step() const {
  const auto steps = published_steps();
  return steps.empty() ? std::nullopt : std::optional(steps.back());
}

std::int64_t RunHistory::bytes_of_newest() const {
  const auto newest = newest_step();
  if (!newest) return 0;
  std::int64_t bytes = 0;
  std::error_code gone;
  for (const auto& file : entries_of(run_.checkpoint(*newest))) {
    const auto size = std::filesystem::file_size(file, gone);
    if (!gone) bytes += static_cast<std::int64_t>(size);
  }
  return bytes;
}

std::optional<std::int64_t> RunHistory::newest_step_before(std::int64_t step) const {
  std::optional<std::int64_t> best;
  for (const auto candidate : published_steps()) {
    if (candidate < step) best = candidate;
  }
  return best;
}

}  // namespace smlp
