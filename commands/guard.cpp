#include <csignal>
#include <memory>

#include "commands/commands.h"
#include "core/error.h"
#include "launcher/batch_guard.h"
#include "slurm/allocation.h"

namespace smlp {

namespace {

struct Options {
  std::string run_directory, node;
  pid_t launcher = 0;
  std::int64_t most_requeues = 0;
};

int guard(const Options& options) {
  const auto allocation = allocation_of_environment();
  if (!allocation) throw Error(ExitCode::usage, "guard runs in a SLURM job, where `smlp run` has started it");
  if (options.launcher != 0) {
    return guard_launcher({.run = {options.run_directory},
                           .launcher = options.launcher,
                           .allocation = *allocation,
                           .most_requeues = options.most_requeues},
                          Controller());
  }
  for (const int ignored : {SIGUSR1, SIGUSR2, SIGINT, SIGHUP}) std::signal(ignored, SIG_IGN);  // meant for the ranks
  keep_guard({.run = {options.run_directory}, .node = options.node, .job_id = allocation->controller_id()}, Controller());
  return 0;
}

}  // namespace

void add_guard_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("guard", "for `run` in a SLURM job: requeues it when the launcher or its node is lost");
  command->group("");  // not for people
  command->add_option("--run-dir", options->run_directory)->required();
  auto* watched = command->add_option_group("watched");
  watched->add_option("--node", options->node);
  watched->add_option("--launcher", options->launcher);
  watched->require_option(1);
  command->add_option("--max-requeues", options->most_requeues);
  command->callback([options, &exit_code] { exit_code = guard(*options); });
}

}  // namespace smlp
