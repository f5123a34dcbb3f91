#include "commands/job_of_run.h"

#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "data/tokenizer.h"

namespace smlp {

namespace {

struct Trained {
  JobConfig job;
  std::string tokenizer;  // its fingerprint; "": not known
};

std::optional<Trained> trained_by(const std::filesystem::path& checkpoint) {
  try {
    const auto state = read_run_state(checkpoint);
    if (state.text("job").empty()) return std::nullopt;
    return Trained{parse_job(state.text("job"), checkpoint / "manifest.json").config, state.text("tokenizer")};
  } catch (const Error&) {  // damaged: the ranks will pass it over, too
    return std::nullopt;
  }
}

std::optional<Trained> newest_readable(const std::vector<CheckpointInfo>& published) {
  for (auto newest = published.rbegin(); newest != published.rend(); ++newest) {
    if (auto found = trained_by(newest->path)) return found;
  }
  return std::nullopt;
}

}  // namespace

std::optional<JobConfig> job_of_run(const RunDirectory& run) {
  const auto published = list_checkpoints(run.checkpoints(), false);
  if (auto found = newest_readable(published)) return std::move(found->job);
  if (published.empty() || !std::filesystem::exists(run.job())) return std::nullopt;
  return load_job(run.job()).config;
}

void check_tokenizer_of_run(const RunDirectory& run, const LoadedJob& job) {
  const auto before = newest_readable(list_checkpoints(run.checkpoints(), false));
  const auto& name = job.config.data.tokenizer;
  if (!before || before->tokenizer.empty() || before->job.data.tokenizer != name) return;
  expect_tokenizer(*open_tokenizer(name), name, before->tokenizer, run.root.string());
}

}  // namespace smlp
