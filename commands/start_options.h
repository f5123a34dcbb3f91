// What `run` and `submit` take alike: a job and where and how its run begins.
#pragma once

#include <filesystem>
#include <string>

#include "commands/job_options.h"
#include "launcher/run_setup.h"

namespace smlp {

struct StartOptions {
  JobOptions job;
  std::string run_directory, init_from;
  std::int64_t max_restarts = -1;
  RunSettings settings;
};

void add_start_options(CLI::App& command, StartOptions& options);
// --run-dir, or runs/<name>.
std::filesystem::path run_directory_of(const StartOptions& options, const JobConfig& job);
// A folder in or above a run's files. Throws Error(io_failed) where it can't be made.
void make_folder_of_run(const std::filesystem::path& folder);

}  // namespace smlp
