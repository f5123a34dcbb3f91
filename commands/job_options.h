// What commands that take a job file have in common: the file, --set, --ranks; and the job handed to a worker.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/job_file.h"

namespace smlp {

struct JobOptions {
  std::string file;
  std::vector<std::string> overrides;
  std::int64_t ranks = 0;  // 0: the job's
};

void add_job_options(CLI::App& command, JobOptions& options);  // JOB.toml, --set, --ranks
void add_set_option(CLI::App& command, std::vector<std::string>& overrides);  // --set
void add_override_options(CLI::App& command, JobOptions& options);  // --set, --ranks
LoadedJob load(const JobOptions& options);
void override_ranks(LoadedJob& job, std::int64_t ranks);

// A resolved job as a file of its own, gone with this object, or with the next one of another process where this one was killed.
class TemporaryJob {
 public:
  explicit TemporaryJob(const JobConfig& job);
  ~TemporaryJob();
  TemporaryJob(const TemporaryJob&) = delete;
  TemporaryJob& operator=(const TemporaryJob&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  TemporaryJob();  // an empty file
  std::filesystem::path path_;
};

}  // namespace smlp
