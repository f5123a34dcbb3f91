#include "commands/job_of_run.h"

#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "core/error.h"

namespace smlp {

namespace {

std::optional<JobConfig> job_of_checkpoint(const std::filesystem::path& checkpoint) {
  try {
    const auto texts = read_run_state(checkpoint).texts;
    const auto job = texts.find("job");
    if (job == texts.end()) return std::nullopt;
    return parse_job(job->second, checkpoint / "manifest.json").config;
  } catch (const Error&) {  // damaged: the ranks will pass it over, too
    return std::nullopt;
  }
}

}  // namespace

std::optional<JobConfig> job_of_run(const RunDirectory& run) {
  const auto published = list_checkpoints(run.checkpoints(), false);
  for (auto newest = published.rbegin(); newest != published.rend(); ++newest) {
    if (auto job = job_of_checkpoint(newest->path)) return job;
  }
  if (published.empty() || !std::filesystem::exists(run.job())) return std::nullopt;
  return load_job(run.job()).config;
}

}  // namespace smlp
