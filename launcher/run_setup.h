// What a run directory is given before its first rank starts: the resolved job, and who this run is. A job that
// differs from that of the checkpoints lying there is refused.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/job_file.h"
#include "core/run_directory.h"

namespace smlp {

// The job of the checkpoints in there; nullopt when there are none, so that any job may start.
std::optional<JobConfig> job_of_checkpoints(const RunDirectory& run);

struct RunSettings {
  std::vector<std::string> accepted_changes;  // keys that may differ from the run's own, on purpose
  std::string init_from;                      // for the records
  bool starts_now = true;                     // false: a batch job will start it
};

// Writes job.toml and run.json. The caller holds the run's lock. Throws Error(configuration) with the keys that
// differ and must not; accepted ones are logged to events.jsonl.
void prepare_run(const RunDirectory& run, const LoadedJob& job, const RunSettings& settings);

}  // namespace smlp
