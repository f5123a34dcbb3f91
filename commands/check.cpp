#include <fmt/format.h>

#include <memory>

#include "checkpoint/saved_job.h"
#include "commands/commands.h"
#include "commands/data_check.h"
#include "commands/job_options.h"
#include "commands/usage.h"
#include "commands/with_checkpoint.h"
#include "core/error.h"
#include "launcher/mpi_launch.h"

namespace smlp {

namespace {

struct CausalityOptions {
  std::string subject;
  std::vector<std::string> overrides;
  std::int64_t positions = 32, seed = 1;
  bool json = false;
};

int check(const LoadedJob& job, const CausalityOptions& options, std::vector<std::string> more) {
  const TemporaryJob file(job.config);
  std::vector<std::string> arguments = {"causality", "--positions", fmt::format("{}", options.positions), "--seed",
                                        fmt::format("{}", options.seed), "--job", file.path().string()};
  arguments.insert(arguments.end(), more.begin(), more.end());
  if (options.json) arguments.push_back("--json");
  return run_worker(arguments, {.ranks = 1, .threads = job.config.cluster.threads});
}

int check(const CausalityOptions& options) {
  if (std::filesystem::is_directory(options.subject)) {
    return with_checkpoint(options.subject, [&](const std::filesystem::path& checkpoint) {
      return check(saved_job(read_run_state(checkpoint), checkpoint, options.overrides), options,
                   {"--checkpoint", checkpoint.string()});
    });
  }
  auto job = load_job(options.subject, options.overrides);
  check_and_resolve(job, Computed::elsewhere);
  resolve_vocabulary(job, false);
  return check(job, options, {});
}

}  // namespace

void add_check_commands(CLI::App& app, int& exit_code) {
  auto* check_command = app.add_subcommand("check", "properties that a model must have");
  check_command->require_subcommand(1);
  check_command->footer("Example:\n  smlp check causality examples/demo.toml");

  const auto options = std::make_shared<CausalityOptions>();
  auto* command = check_command->add_subcommand(
      "causality", "that no position sees a later token: exit code 0, or 1 where one does");
  command
      ->add_option("MODEL", options->subject,
                   "a job file (fresh weights; those that begin near zero are made random), a run directory (its newest "
                   "valid checkpoint) or a checkpoint")
      ->required()
      ->type_name("JOB.toml|RUN|CHECKPOINT");
  add_set_option(*command, options->overrides);
  command
      ->add_option("--positions", options->positions, "how many are tried at most; every one of a shorter context (32)")
      ->check(whole_number_within(1, 1 << 20))
      ->type_name("N");
  command->add_option("--seed", options->seed, "other positions, other tokens (1)")
      ->check(whole_number_within(0, std::int64_t{1} << 62))
      ->type_name("S");
  command->add_flag("--json", options->json, "one JSON document");
  command->footer("In float64 and in evaluation mode, on one rank. With\n"
                  "--set routing.evaluation_capacity_factor=1.0 tokens are dropped at evaluation too.\n\n"
                  "Example:\n  smlp check causality examples/demo.toml\n"
                  "  smlp check causality runs/demo --json");
  command->callback([options, &exit_code] { exit_code = check(*options); });
}

}  // namespace smlp
