#include "commands/job_options.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "commands/usage.h"
#include "core/error.h"
#include "core/files.h"
#include "core/leftovers.h"

namespace smlp {

void add_set_option(CLI::App& command, std::vector<std::string>& overrides) {
  command.add_option("--set", overrides, "section.key=value: changes a value of the job (TOML; a bare word is a string)")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
}

void add_override_options(CLI::App& command, JobOptions& options) {
  add_set_option(command, options.overrides);
  command.add_option("--ranks", options.ranks, "worker processes, in place of cluster.ranks")
      ->check(whole_number_within(1, 1 << 20))
      ->type_name("N");
}

void add_job_options(CLI::App& command, JobOptions& options) {
  command.add_option("JOB", options.file, "job file (docs/running.md, `smlp config keys`)")->required()->type_name("JOB.toml");
  add_override_options(command, options);
}

LoadedJob load(const JobOptions& options) {
  auto job = load_job(options.file, options.overrides);
  override_ranks(job, options.ranks);
  return job;
}

void override_ranks(LoadedJob& job, std::int64_t ranks) {
  if (ranks == 0) return;
  job.config.cluster.ranks = ranks;
  set_origin(job, "cluster.ranks", "--ranks");
}

TemporaryJob::TemporaryJob() {
  constexpr const char* prefix = "smlp-job-";
  const auto folder = temporary_folder("the job for a worker");
  sweep_leftovers(folder, prefix);
  std::string pattern = folder / (name_of_own(prefix) + ".XXXXXX");
  const int descriptor = mkstemp(pattern.data());
  if (descriptor < 0) {
    throw Error(ExitCode::io_failed, fmt::format("no file for a worker's job could be made in {}: {}; TMPDIR names another folder",
                                                 folder.string(), std::strerror(errno)));
  }
  close(descriptor);
  path_ = pattern;
}

// The file is gone also where it can't be written: by then the object is whole.
TemporaryJob::TemporaryJob(const JobConfig& job) : TemporaryJob() { write_atomically(path_, to_toml(job)); }

TemporaryJob::~TemporaryJob() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace smlp
