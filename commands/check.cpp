#include <fmt/format.h>

#include <memory>

#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "commands/job_check.h"
#include "commands/job_options.h"
#include "commands/usage.h"
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

LoadedJob job_of_checkpoint(const std::filesystem::path& checkpoint, const std::vector<std::string>& overrides) {
  const auto state = read_run_state(checkpoint);
  const auto text = state.text("job");
  if (text.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("{} does not say which job it is of", checkpoint.string()));
  }
  return parse_job(text, checkpoint / "manifest.json", overrides);
}

int check(const CausalityOptions& options) {
  std::vector<std::string> arguments = {"causality", "--positions", fmt::format("{}", options.positions), "--seed",
                                        fmt::format("{}", options.seed)};
  LoadedJob job;
  if (std::filesystem::is_directory(options.subject)) {
    const auto checkpoint = find_checkpoint(options.subject);
    job = job_of_checkpoint(checkpoint, options.overrides);
    arguments.insert(arguments.end(), {"--checkpoint", checkpoint.string()});
  } else {
    job = load_job(options.subject, options.overrides);
    check_and_resolve(job, Computed::elsewhere);
    resolve_vocabulary(job, false);
  }
  const TemporaryJob file(job.config);
  arguments.insert(arguments.end(), {"--job", file.path().string()});
  if (options.json) arguments.push_back("--json");
  return run_worker(arguments, {.ranks = 1, .threads = job.config.cluster.threads});
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
