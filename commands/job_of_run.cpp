#include "commands/job_of_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "checkpoint/saved_job.h"
#include "core/error.h"
#include "core/tell.h"
#include "core/version.h"
#include "data/tokenizer.h"

namespace smlp {

namespace {

std::optional<RunState> state_in(const std::filesystem::path& checkpoint) {
  try {
    return read_run_state(checkpoint);
  } catch (const std::exception&) {  // damaged, or not to be read: the ranks will pass it over, too
    return std::nullopt;
  }
}

// The ranks go on from this checkpoint: an older one's job is not what it is compared with.
std::optional<JobOfRun> named_by(const std::filesystem::path& checkpoint) {
  const auto state = state_in(checkpoint);
  if (!state || state->text("job").empty()) return std::nullopt;
  try {
    return JobOfRun{saved_job(*state, checkpoint).config, checkpoint, state->text("tokenizer")};
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("this smlp ({}) does not understand the job that {} is of, which another version "
                                          "wrote. Go on with that version, or move the checkpoint away to go on from the one "
                                          "before it: {}",
                                          version(), checkpoint.string(), error.what()));
  }
}

}  // namespace

std::optional<JobOfRun> job_of_run(const RunDirectory& run) {
  const auto published = list_checkpoints(run.checkpoints(), false);
  refuse_newer_formats(published);
  for (auto newest = published.rbegin(); newest != published.rend(); ++newest) {
    if (auto found = named_by(newest->path)) return found;
  }
  if (published.empty() || !std::filesystem::exists(run.job())) return std::nullopt;
  return JobOfRun{load_job(run.job()).config, "", ""};
}

void check_same_tokenizer(const RunDirectory& run, const JobOfRun& before, const JobConfig& now,
                          const std::vector<std::string>& accepted) {
  if (std::find(accepted.begin(), accepted.end(), "data.tokenizer") != accepted.end()) return;
  const auto& name = now.data.tokenizer;
  if (before.tokenizer.empty() || before.config.data.tokenizer != name) return;
  expect_tokenizer(*open_tokenizer(name), name, before.tokenizer, run.root.string());
}

void tell_of_flat_rate(const JobConfig& job) {
  const auto end = job.schedule.decay_steps;
  if (job.schedule.kind != "cosine" || job.train.steps <= end) return;
  tell("the run's cosine ends at step {0}: steps {1} to {2} train at schedule.minimum_rate = {3}. To stretch it over all steps: "
       "--set schedule.decay_steps={2} --accept-change schedule.decay_steps",
       end, end + 1, job.train.steps, job.schedule.minimum_rate);
}

}  // namespace smlp
