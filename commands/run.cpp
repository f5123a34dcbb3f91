#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "commands/changed_model.h"
#include "commands/commands.h"
#include "commands/data_check.h"
#include "commands/init_from.h"
#include "commands/job_of_run.h"
#include "commands/start_options.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/features.h"
#include "core/tell.h"
#include "launcher/batch_guard.h"
#include "launcher/cluster.h"
#include "launcher/disk_room.h"
#include "launcher/mpi_launch.h"
#include "launcher/run_history.h"
#include "launcher/run_lock.h"
#include "launcher/run_setup.h"
#include "launcher/signal_queue.h"
#include "launcher/supervisor.h"

namespace smlp {

namespace {

// A requeued job that found its disk full would end for good over its first file.
void wait_for_room(const RunDirectory& run) {
  const double end = monotonic_seconds() + full_disk_patience_seconds;
  for (std::string said, why; !(why = why_no_room(run.root)).empty() && monotonic_seconds() < end; sleep_seconds(1)) {
    if (why != std::exchange(said, why)) tell("{}: waiting for room", why);
  }
}

int run(StartOptions options) {
  if (in_batch_job()) hold_back_signals();  // a warning may come at once
  auto job = load(options.job);
  check_name(job);
  const RunDirectory directory{run_directory_of(options, job.config)};
  const auto there = job_of_run(directory);  // before it is this launcher's
  auto as_things_are = job;
  if (there) keep_resolved(as_things_are, there->config);
  check_and_resolve(as_things_are);
  need_ranks(as_things_are.config.cluster.ranks);
  resolve_vocabulary(job, true);
  check_data(job);

  SupervisorOptions supervision;
  supervision.worker = find_worker();
  supervision.max_restarts = options.max_restarts;
  for (const auto& key : options.settings.accepted_changes) value_of(job.config, key);  // refuses an unknown one
  if (!options.init_from.empty() && !there) {
    supervision.init_from = weights_to_begin_with(options.init_from, as_things_are.config, options.settings.accepted_changes);
  }
  make_folder_of_run(directory.root);
  if (job.config.cluster.launcher != "local" && in_the_batch_scripts_place()) {
    guard_this_launcher(directory, job.config.slurm.max_requeues);
    supervision.one_request_seconds = two_ways_seconds;
  }
  if (in_batch_job()) wait_for_room(directory);
  const auto lock = take_run(directory, patience_here());

  const auto before = job_of_run(directory);
  if (before) check_same_tokenizer(directory, *before, job.config, options.settings.accepted_changes);
  if (before) keep_resolved(job, before->config);
  check_and_resolve(job);
  if (before) tell_of_flat_rate(job.config);
  if (!options.init_from.empty() && before) {
    fmt::print("--init-from is not used: {} goes on from its own checkpoints\n", directory.root.string());
    supervision.init_from.reset();
  }
  if (!supervision.init_from) supervision.init_from = weights_given_before(directory);
  if (supervision.init_from) options.settings.init_from = *supervision.init_from;
  Supervisor supervisor(directory, job.config, supervision);  // refuses a job that has no place here, before a file is written
  hold_back_signals();
  options.settings.expect_possible = [&](const auto& changed) { expect_same_tensors(*before, job, changed); };
  prepare_run(directory, job, before ? &before->config : nullptr, options.settings);
  if (!built_with_hdf5()) {
    tell("this smlp was built without HDF5: the run saves nothing, and what ends before it is done begins again");
  }
  const auto newest = RunHistory(directory).newest_step();
  fmt::print("{}: {} ranks in {}, {}\n", job.config.name, job.config.cluster.ranks, directory.root.string(),
             newest                  ? fmt::format("the newest checkpoint is {}", *newest)
             : supervision.init_from ? fmt::format("from the start, with the weights of {}", supervision.init_from->string())
                                     : "from the start");
  return supervisor.run();
}

}  // namespace

void add_run_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<StartOptions>();
  auto* command = app.add_subcommand("run", "trains here; goes on where the run directory stands");
  add_start_options(*command, *options);
  command->footer(
      "Ctrl-C or SIGTERM: the ranks save and leave, smlp ends with 75; a second one ends them at once.\n\n"
      "Example:\n  smlp run examples/demo.toml --set train.steps=800 --ranks 2");
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace smlp
