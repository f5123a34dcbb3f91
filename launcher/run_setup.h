// What a run directory is given before its first rank starts: the resolved job, and who this run is. A job that
// differs from that of the checkpoints lying there is refused.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/job_file.h"
#include "core/run_directory.h"

namespace smlp {

struct RunSettings {
  std::vector<std::string> accepted_changes;  // keys that may differ from the run's own, on purpose
  std::string init_from;                      // for the records
  // Called with the changed keys that are accepted, before anything is written: may refuse them by an Error.
  std::function<void(const std::vector<std::string>& changed)> expect_possible{};
  bool starts_now = true;                     // false: a batch job will start it
};

// Throws Error(configuration) as prepare_run() does, and writes nothing.
void expect_job_of_run(const RunDirectory& run, const LoadedJob& job, const JobConfig* before, const RunSettings& settings);

// Writes job.toml and run.json. The caller holds the run's lock. `before`: the job of the checkpoints there, if any. Throws
// Error(configuration) with the keys that differ from it and must not; accepted ones are logged to events.jsonl, and hold
// for later starts of the same job. A job.toml from before the first start, a user's own, is kept as job.given.toml.
void prepare_run(const RunDirectory& run, const LoadedJob& job, const JobConfig* before,
                 const RunSettings& settings);

// The checkpoint whose weights an earlier start gave the run, as long as it is there; nullopt: none did. The ranks take them
// where no checkpoint of the run's own holds. Throws Error(configuration) where it is gone and the run has none of its own,
// nor can its nodes hold saves.
std::optional<std::filesystem::path> weights_given_before(const RunDirectory& run);

}  // namespace smlp
