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
};

void guard(const Options& options) {
  for (const int ignored : {SIGUSR1, SIGUSR2, SIGINT, SIGHUP}) std::signal(ignored, SIG_IGN);  // meant for the ranks
  const auto allocation = allocation_of_environment();
  if (!allocation) throw Error(ExitCode::usage, "guard runs in a SLURM job, where `smlp run` has started it");
  keep_guard({.run = {options.run_directory}, .node = options.node, .job_id = allocation->job_id}, Controller());
}

}  // namespace

void add_guard_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("guard", "for `run` in a SLURM job: has it requeued when the launcher's node is lost");
  command->group("");  // not for people
  command->add_option("--run-dir", options->run_directory)->required();
  command->add_option("--node", options->node)->required();
  command->callback([options] { guard(*options); });
}

}  // namespace smlp
