#include "launcher/run_follower.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "core/json_lines.h"
#include "launcher/run_history.h"
#include "launcher/run_lock.h"

namespace smlp {

namespace {

constexpr std::size_t steps_for_a_mean = 10;

std::optional<StepDone> parse(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto attempt = attempt_in(json);
  const auto step = integer_in(json, "step");
  if (!attempt || !step) return std::nullopt;
  return StepDone{.attempt = *attempt,
                  .step = *step,
                  .loss = number_in(json, "loss").value_or(0),
                  .time = number_in(json, "time").value_or(0),
                  .checkpoint = integer_in(json, "checkpoint_last_step").value_or(0)};
}

}  // namespace

void RunFollower::read() {
  std::error_code absent;
  const auto size = std::filesystem::file_size(run_.metrics(), absent);
  if (absent || size <= offset_) return;
  std::ifstream file(run_.metrics(), std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset_));
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  offset_ += text.size();
  rest_ += text;
  std::size_t start = 0;
  for (auto end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n', start)) {
    if (const auto step = parse(rest_.substr(start, end - start))) {
      steps_.push_back(*step);
      furthest_ = std::max(furthest_, step->step);
    }
    start = end + 1;
  }
  rest_.erase(0, start);
}

double RunFollower::step_seconds() const {
  if (steps_.size() < 2) return 0;
  const auto first = steps_.size() > steps_for_a_mean ? steps_.size() - steps_for_a_mean : 0;
  if (steps_[first].attempt != steps_.back().attempt) return 0;
  return (steps_.back().time - steps_[first].time) / static_cast<double>(steps_.size() - 1 - first);
}

std::optional<Beat> RunFollower::beat(int rank) const {
  return parse_beat(read_plain_file(run_.heartbeat(rank), 4096).value_or(""));
}

std::optional<pid_t> RunFollower::launcher() const {
  const auto holder = run_holder(run_);
  return holder && holder->here() && holder->alive() ? std::optional(holder->pid) : std::nullopt;
}

std::vector<std::int64_t> RunFollower::checkpoints() const { return RunHistory(run_).published_steps(); }

std::filesystem::path RunFollower::checkpoint(std::int64_t step) const {
  return run_.checkpoints() / fmt::format("step-{:08}", step);
}

bool RunFollower::saving() const {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(run_.checkpoints(), ignored)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with("step-") && name.ends_with(".tmp")) return true;
  }
  return false;
}

}  // namespace smlp
