#include "commands/job_of_run.h"

#include <algorithm>
#include <filesystem>

#include "checkpoint/saved_job.h"
#include "core/error.h"
#include "data/tokenizer.h"

namespace smlp {

namespace {

std::optional<JobOfRun> named_by(const std::filesystem::path& checkpoint) {
  try {
    const auto state = read_run_state(checkpoint);
    return JobOfRun{saved_job(state, checkpoint).config, checkpoint, state.text("tokenizer")};
  } catch (const std::exception&) {  // damaged, or not to be read: the ranks will pass it over, too
    return std::nullopt;
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

}  // namespace smlp
