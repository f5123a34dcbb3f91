#include "commands/start_options.h"

#include <fmt/format.h>

#include <limits>

#include "commands/usage.h"
#include "core/error.h"

namespace smlp {

void add_start_options(CLI::App& command, StartOptions& options) {
  add_job_options(command, options.job);
  command.add_option("--run-dir", options.run_directory, "where everything of the run lies; runs/<name> by default")
      ->check(not_empty())
      ->type_name("DIR");
  command.add_option("--max-restarts", options.max_restarts, "give up after so many; as many as bring progress by default")
      ->check(whole_number_within(0, std::numeric_limits<std::int32_t>::max()))
      ->type_name("N");
  command.add_option("--init-from", options.init_from, "a run or checkpoint whose weights a new run starts with")
      ->check(not_empty())
      ->type_name("CHECKPOINT");
  command.add_option("--accept-change", options.settings.accepted_changes,
                     "a key that may differ from the run's own, on purpose (logged)")
      ->type_name("KEY")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
}

std::filesystem::path run_directory_of(const StartOptions& options, const JobConfig& job) {
  return options.run_directory.empty() ? std::filesystem::path("runs") / job.name : std::filesystem::path(options.run_directory);
}

void make_folder_of_run(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error && std::filesystem::is_directory(folder, error)) return;
  throw Error(ExitCode::io_failed, fmt::format("the run directory {} can't be made: {}; choose another --run-dir",
                                               folder.string(), error ? error.message() : "a file has that name"));
}

}  // namespace smlp
