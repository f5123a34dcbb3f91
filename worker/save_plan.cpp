#include "worker/save_plan.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "core/files.h"

namespace smlp {

JobConfig::Checkpoint no_saves(JobConfig::Checkpoint job) {
  job.every_steps = job.local_every_steps = job.keep_every = 0;
  job.every_seconds = 0;
  job.automatic = job.keep_best = false;
  job.local_dir.clear();
  return job;
}

SavePlan::SavePlan(const JobConfig::Checkpoint& job, const RunDirectory& run)
    : job_(job), run_(run), intervals_(job.auto_least_seconds, job.auto_most_seconds) {
  if (!job_.automatic) return;
  failures_ = count_failures(run_);
  intervals_.recall(read_if_there(run_.save_intervals()));
}

bool SavePlan::due(Tier tier, std::int64_t step) const {
  const auto& last = of(tier);
  if (last.step < 0) return true;
  if (job_.automatic) return last.since.seconds() >= intervals_.seconds(tier);
  const auto every = tier == Tier::shared ? job_.every_steps : job_.local_every_steps;
  // A step whose save could not be is made up for at the next one.
  const auto intervals = [&](std::int64_t of_step) { return std::max<std::int64_t>(of_step, 0) / every; };
  if (every > 0 && intervals(step) > intervals(last.step)) return true;
  return tier == Tier::shared && job_.every_seconds > 0 && last.since.seconds() >= job_.every_seconds;
}

void SavePlan::start(std::int64_t step, Tier from) {
  last_[static_cast<std::size_t>(Tier::local)] = {step, {}};
  last_[static_cast<std::size_t>(Tier::shared)] = {from == Tier::shared ? step : -1, {}};
}

void SavePlan::begun(Tier tier, std::int64_t step, double stall_seconds) {
  last_[static_cast<std::size_t>(tier)] = {step, {}};
  intervals_.begun(tier, stall_seconds);
}

void SavePlan::choose(double seconds_up, const Moved& moved) {
  if (!job_.automatic) return;
  const FailureRate rate{seconds_up, failures_};
  const auto tiers = intervals_.choose(rate);
  for (const auto tier : tiers) moved(tier, intervals_.seconds(tier), intervals_.sentence(tier, rate));
  if (tiers.empty()) return;
  try {
    write_atomically(run_.save_intervals(), intervals_.text());
  } catch (const std::exception& error) {
    spdlog::warn("{}; the next attempt will measure its saves anew", error.what());
  }
}

}  // namespace smlp
