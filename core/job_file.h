// From a job file to a checked JobConfig: TOML with defaults, `--set` overrides, where each value came from, and
// sentences with file, line, the nearest key and the reason for whatever is wrong. One table (job_keys()) names
// every key with type, default and meaning; reader, writer, help and comparison all walk it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/job_config.h"

namespace smlp {

struct KeyInfo {
  std::string key;      // "model.context"
  std::string type;     // "integer", "number", "string", "boolean", "strings", "numbers"
  std::string fallback; // the default as TOML
  std::string meaning;
  bool may_change;      // between restarts of a run: key_may_change() in core/job_keys.cpp
};
const std::vector<KeyInfo>& job_keys();

struct LoadedJob {
  JobConfig config;
  std::filesystem::path file;
  std::vector<std::pair<std::string, std::string>> origins;  // key -> "demo.toml:12", "--set", "default"
};

// `overrides`: "section.key=value" with a TOML value; a bare word is a string. Throws Error(configuration).
LoadedJob load_job(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});
// The same from text; `file` is its name in sentences.
LoadedJob parse_job(const std::string& text, const std::filesystem::path& file,
                    const std::vector<std::string>& overrides = {});
std::string origin_of(const LoadedJob& job, const std::string& key);
void set_origin(LoadedJob& job, const std::string& key, const std::string& origin);  // a value that was resolved

// Throws Error(configuration) where the job's name can't name a folder. check_and_resolve() looks at it too.
void check_name(const LoadedJob& job);

enum class Computed { here, elsewhere };
// Values that must fit each other, before anything runs: E divides H, the global batch can be shared by `ranks`,
// heads divide F/2, ... Throws Error(configuration) naming key, line and remedy. Fills in group_sequences,
// decay_steps, expert_ranks. model.vocabulary must be resolved first, or 0 when no data is opened. A job that this
// build can't compute (it has no CUDA, no NCCL) throws Error(unavailable), unless that is done `elsewhere`.
void check_and_resolve(LoadedJob& job, Computed computed = Computed::here);
// Call before it when a run goes on: what the job leaves to be derived from keys that may change stays as the run
// has it (group_sequences from micro_batch, decay_steps from steps).
void keep_resolved(LoadedJob& job, const JobConfig& run);

std::string to_toml(const JobConfig& config);   // every key, readable by load_job()
std::string value_of(const JobConfig& config, const std::string& key);  // as TOML
// The keys that may not change between restarts, readable by parse_job(): what a checkpoint says of its job.
std::string identity_toml(const JobConfig& config);
std::string fingerprint(const JobConfig& config);  // XXH3-128 hex of all keys that may not change
// Keys that differ and may not change between restarts of a run.
std::vector<std::string> changed_keys(const JobConfig& before, const JobConfig& now);

}  // namespace smlp
