#include <memory>

#include "commands/commands.h"
#include "commands/job_check.h"
#include "commands/job_options.h"
#include "core/error.h"
#include "launcher/mpi_launch.h"

namespace smlp {

namespace {

struct PlanOptions {
  JobOptions job;
  bool paper = false, json = false;
};

int plan_paper(bool json) {
  std::vector<std::string> arguments = {"plan", "--paper"};
  if (json) arguments.push_back("--json");
  return run_worker(arguments, {});
}

int plan(const PlanOptions& options) {
  if (options.paper) return plan_paper(options.json);
  if (options.job.file.empty()) {
    throw Error(ExitCode::usage, "smlp plan: JOB is required, or --paper; `smlp plan --help` says more");
  }
  auto job = load(options.job);
  check_and_resolve(job);
  resolve_vocabulary(job, false);
  const TemporaryJob file(job.config);
  std::vector<std::string> arguments = {"plan", "--job", file.path().string()};
  if (options.json) arguments.push_back("--json");
  return run_worker(arguments, {.ranks = 1, .threads = job.config.cluster.threads});
}

}  // namespace

void add_plan_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<PlanOptions>();
  auto* command = app.add_subcommand("plan", "counts, memory, exchange and checkpoint size of a job, without running it");
  add_job_options(*command, options->job);
  auto* file = command->get_option("JOB");
  file->required(false);
  command->add_flag("--paper", options->paper, "the models of the paper's tables, our counts beside its own")->excludes(file);
  command->add_flag("--json", options->json, "one JSON document");
  command->footer("Example:\n  smlp plan examples/demo.toml --ranks 4\n  smlp plan --paper");
  command->callback([options, &exit_code] { exit_code = plan(*options); });
}

}  // namespace smlp
