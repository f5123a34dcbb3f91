#include "launcher/run_follower.h"

#include <algorithm>

#include "core/files.h"
#include "core/lock_holder.h"
#include "launcher/run_history.h"

namespace smlp {

namespace {

constexpr std::size_t steps_for_a_mean = 10;

std::optional<StepDone> step_in(const nlohmann::json& line) {
  const auto attempt = attempt_in(line);
  const auto step = integer_in(line, "step");
  if (!attempt || !step) return std::nullopt;
  return StepDone{.attempt = *attempt,
                  .step = *step,
                  .loss = number_in(line, "loss").value_or(0),
                  .time = number_in(line, "time").value_or(0),
                  .checkpoint = integer_in(line, "checkpoint_last_step").value_or(0)};
}

}  // namespace

void RunFollower::read() {
  metrics_.read([this](const nlohmann::json& line) {
    if (const auto step = step_in(line)) {
      steps_.push_back(*step);
      furthest_ = std::max(furthest_, step->step);
    }
  });
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
  const auto holder = last_holder(run_.launcher_lock());
  return holder && holder->here() && holder->alive() ? std::optional(holder->pid) : std::nullopt;
}

std::vector<std::int64_t> RunFollower::checkpoints() const { return RunHistory(run_).published_steps(); }

bool RunFollower::saving() const {
  for (const auto& entry : entries_of(run_.checkpoints())) {
    const auto name = entry.filename().string();
    if (name.starts_with("step-") && name.ends_with(".tmp")) return true;
  }
  return false;
}

}  // namespace smlp
