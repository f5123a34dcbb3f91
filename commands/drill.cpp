#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "commands/data_check.h"
#include "commands/job_options.h"
#include "commands/live_run.h"
#include "commands/print_json.h"
#include "commands/start_options.h"
#include "commands/usage.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/features.h"
#include "core/program.h"
#include "core/tell.h"
#include "launcher/drill.h"
#include "launcher/drill_verdict.h"
#include "launcher/fault_strike.h"
#include "launcher/processes.h"
#include "launcher/run_status.h"

namespace smlp {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct DrillOptions {
  JobOptions job;  // or a live run's directory
  std::string faults = "all", fault, run_directory, undisturbed;
  std::int64_t seed = 1, count = 0;
  int rank = 0;
  double patience_seconds = 300;
  bool json = false;
};

FaultKind kind_named(const std::string& name) {
  if (name == "cut-off") {
    throw Error(ExitCode::unavailable, "a node can be cut off only in an allocation of several nodes, by whoever may take "
                                       "down its network: tests/slurm/drills.py does it on nodes made of namespaces");
  }
  if (const auto kind = fault_named(name)) return *kind;
  const auto near = nearest_name(name, fault_names());
  if (name == "all") throw Error(ExitCode::usage, "'all' stands alone: it is every fault that the job can have");
  throw Error(ExitCode::usage, fmt::format("there is no fault '{}'; {}there are {}, or all", name,
                                           near.empty() ? "" : fmt::format("did you mean {}? ", near),
                                           fmt::join(fault_names(), ", ")));
}

std::vector<FaultKind> kinds_of(const std::string& list, const DrillShape& shape) {
  std::vector<FaultKind> kinds;
  if (list == "all") {
    for (const auto& name : fault_names()) {
      if (why_not(*fault_named(name), shape).empty()) kinds.push_back(*fault_named(name));
    }
    return kinds;
  }
  std::istringstream names(list);
  for (std::string name; std::getline(names, name, ',');) {
    const auto kind = kind_named(name);
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  }
  return kinds;
}

DrillShape shape_of(const JobConfig& job) {
  if (job.checkpoint.every_steps <= 0 || job.checkpoint.automatic) {
    throw Error(ExitCode::configuration, "a drill judges what is lost by checkpoint.every_steps: set it, and checkpoint.auto "
                                         "= false (--set checkpoint.every_steps=10)");
  }
  return {.steps = job.train.steps,
          .save_every = job.checkpoint.every_steps,
          .compare_every = job.cluster.replica_check_every,
          .ranks = job.cluster.ranks,
          .shard_states = job.optimizer.shard_states,
          .hang_floor_seconds = job.cluster.hang_floor_seconds,
          .keep_last = job.checkpoint.keep_last};
}

std::string when(const Fault& fault) {
  switch (fault.phase) {
    case FaultPhase::save: return "during a save, ";
    case FaultPhase::start: return "during a restart, ";
    case FaultPhase::step: break;
  }
  return "";
}

std::string line_of(const FaultResult& one) {
  const bool whole_run = one.fault.kind == FaultKind::kill_launcher || one.fault.kind == FaultKind::kill_mpirun;
  const auto target = whole_run ? std::string() : fmt::format(" rank {}", one.fault.rank);
  const auto head = fmt::format("{}{}, {}step {}: ", name_of(one.fault.kind), target, when(one.fault), one.strike.step);
  if (!restarts(one.fault.kind)) return head + fmt::format("next step after {:.2f} s, no restart", one.to_step);
  return head + fmt::format("training again after {:.2f} s, at step {}; a new step after {:.2f} s; {} steps lost", one.to_step,
                            one.first, one.to_new_step, one.lost);
}

ordered_json json_of(const FaultResult& one) {
  return {{"kind", name_of(one.fault.kind)},
          {"phase", name_of(one.fault.phase)},
          {"rank", one.fault.rank},
          {"planned_step", one.fault.step},
          {"step", one.strike.step},
          {"attempt", one.strike.attempt},
          {"seconds_to_step", one.to_step},
          {"seconds_to_new_step", one.to_new_step},
          {"first_step", one.first},
          {"steps_lost", one.lost},
          {"steps_that_may_be_lost", one.at_most},
          {"noticed", one.noticed}};
}

std::vector<std::string> run_command(const DrillOptions& options, const RunDirectory& run) {
  std::vector<std::string> command = {fs::read_symlink("/proc/self/exe").string(), "run", options.job.file, "--run-dir",
                                      run.root.string()};
  for (const auto& override : options.job.overrides) command.insert(command.end(), {"--set", override});
  if (options.job.ranks > 0) command.insert(command.end(), {"--ranks", fmt::format("{}", options.job.ranks)});
  return command;
}

// One that an earlier drill has left is no measure for a job that was changed since.
void expect_run_of_this_job(const RunDirectory& run, LoadedJob job) {
  if (!fs::exists(run.job())) return;
  resolve_vocabulary(job, true);
  check_and_resolve(job);
  const auto its = load_job(run.job()).config;
  for (const auto& key : job_keys()) {
    const auto before = value_of(its, key.key), now = value_of(job.config, key.key);
    if (before == now) continue;
    throw Error(ExitCode::configuration,
                fmt::format("{} is a run of another job: it has {} = {}, this one {}; remove it, or choose another --run-dir",
                            run.root.string(), key.key, before, now));
  }
}

// What the drilled run is compared with: a run of the same job that nothing happens to.
void run_undisturbed(const DrillOptions& options, const RunDirectory& run, std::int64_t steps) {
  if (fs::exists(run.checkpoint(steps))) return;
  if (!options.undisturbed.empty()) {
    throw Error(ExitCode::configuration, fmt::format("{} has no checkpoint of step {}, the last: it is no finished run of "
                                                     "this job", run.root.string(), steps));
  }
  auto output = run.root;
  output += ".out";
  int status = 0;
  waitpid(start_process({.command = run_command(options, run), .environment = own_environment(), .output = output}), &status, 0);
  if (status == 0) return;
  throw Error(WIFEXITED(status) ? static_cast<ExitCode>(WEXITSTATUS(status)) : ExitCode::fault,
              fmt::format("the run without faults failed; its words are in {}", output.string()));
}

void compare_ends(const RunDirectory& drilled, const RunDirectory& undisturbed, std::int64_t steps,
                  std::vector<std::string>& problems) {
  for (const auto& info : list_checkpoints(drilled.checkpoints(), true)) {
    if (!info.valid) problems.push_back(fmt::format("{} does not hold: {}", info.path.string(), info.reason));
  }
  if (!fs::exists(drilled.checkpoint(steps))) return;  // said already: the run is not done
  const auto differences = diff_checkpoints(undisturbed.checkpoint(steps), drilled.checkpoint(steps));
  if (differences.empty()) return;
  problems.push_back(fmt::format("the last checkpoint is not that of the undisturbed run: {}: {}{}", differences[0].name,
                                 differences[0].what,
                                 differences.size() > 1 ? fmt::format("; {} more", differences.size() - 1) : ""));
}

RunDirectory absent_folder(const fs::path& parent) {
  const RunDirectory run{fs::absolute(parent / "drilled")};
  if (!fs::exists(run.root)) return run;
  throw Error(ExitCode::configuration, fmt::format("{} is there already: remove it, or choose another --run-dir",
                                                   run.root.string()));
}

int drill_job(const DrillOptions& options) {
  need_checkpoints("a drill judges what a run loses by its");
  auto job = load(options.job);
  check_and_resolve(job);
  const auto& config = job.config;
  const auto shape = shape_of(config);
  const auto kinds = kinds_of(options.faults, shape);
  const auto count = options.count > 0 ? static_cast<int>(options.count) : static_cast<int>(kinds.size());
  DrillSettings settings;
  settings.faults = plan_faults(static_cast<std::uint64_t>(options.seed), kinds, count, shape);
  const fs::path parent = options.run_directory.empty() ? fs::path("runs") / (config.name + "-drill")
                                                        : fs::path(options.run_directory);
  const RunDirectory undisturbed{fs::absolute(options.undisturbed.empty() ? parent / "undisturbed"
                                                                          : fs::path(options.undisturbed))};
  if (options.undisturbed.empty()) expect_run_of_this_job(undisturbed, load(options.job));
  settings.run = absent_folder(parent);
  make_folder_of_run(parent);
  settings.command = run_command(options, settings.run);
  settings.output = parent / "drilled.out";
  settings.save_every = shape.save_every;
  settings.patience_seconds = options.patience_seconds;
  if (!options.json) {
    settings.told = [](const FaultResult& one) {
      fmt::print("{}\n", line_of(one));
      std::fflush(stdout);
    };
  }
  const double began = monotonic_seconds();
  run_undisturbed(options, undisturbed, config.train.steps);
  make_folder_of_run(settings.run.root);
  auto drill = Drill(settings).run();
  auto problems = judge(drill, settings, undisturbed, shape);
  compare_ends(settings.run, undisturbed, config.train.steps, problems);
  if (options.json) {
    ordered_json document = {{"passed", problems.empty()}, {"seed", options.seed}, {"run", settings.run.root.string()},
                             {"undisturbed", undisturbed.root.string()}, {"seconds", monotonic_seconds() - began},
                             {"save_every", shape.save_every}, {"ranks", shape.ranks},
                             {"faults", ordered_json::array()}, {"problems", problems}};
    for (const auto& one : drill.faults) document["faults"].push_back(json_of(one));
    print_json(document);
  } else if (problems.empty()) {
    fmt::print("all is well: {} faults, the last checkpoint is bit for bit that of the undisturbed run, nothing is left\n",
               drill.faults.size());
  }
  for (const auto& problem : problems) tell("{}", problem);
  return static_cast<int>(problems.empty() ? ExitCode::done : ExitCode::difference);
}

// One fault on a run that is live already; what it makes of it is told, not judged.
int drill_live(const DrillOptions& options) {
  if (options.fault.empty()) {
    throw Error(ExitCode::usage, fmt::format("{} is a run directory: say which --fault is to strike it, and on which --rank",
                                             options.job.file));
  }
  const auto kind = kind_named(options.fault);
  const auto run = live_run(options.job.file);
  RunFollower follower(run);
  follower.read();
  const auto strike_now = strike(kind, options.rank, follower);
  if (!strike_now) {
    throw Error(ExitCode::unavailable,
                fmt::format("rank {} of {} is not there to be struck", options.rank, options.job.file));
  }
  FaultResult result{.fault = {.kind = kind, .rank = options.rank, .step = strike_now->step}, .strike = *strike_now};
  if (kind == FaultKind::kill_launcher) {
    if (options.json) print_json(json_of(result));
    else fmt::print("the launcher is killed, and its ranks end with it; `smlp run` goes on from the newest checkpoint\n");
    return 0;
  }
  const double end = monotonic_seconds() + options.patience_seconds;
  follow_return(result, follower, [&](const std::function<bool()>& condition, const std::string& what) {
    for (follower.read(); !condition(); follower.read()) {
      if (!is_live(run)) throw Error(ExitCode::fault, fmt::format("the run ended before {}", what));
      if (monotonic_seconds() > end || interrupted()) {
        throw Error(ExitCode::call_again, fmt::format("{:.0f} s were not enough until {}", options.patience_seconds, what));
      }
      sleep_seconds(0.005);
    }
  });
  if (options.json) print_json(json_of(result));
  else fmt::print("{}\n", line_of(result));
  return 0;
}

}  // namespace

void add_drill_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<DrillOptions>();
  auto* command = app.add_subcommand("drill", "lets faults strike a run, and judges what it makes of them");
  add_job_options(*command, options->job);
  command->get_option("JOB")->description("job file: it is run twice, without faults and with them; or a live run's directory");
  command->add_option("--seed", options->seed, "kinds, order, steps and ranks follow from it; 1 by default")
      ->check(whole_number_within(0, std::int64_t{1} << 53))
      ->type_name("N");
  command->add_option("--faults", options->faults, fmt::format("kinds, with commas between: {}; all by default",
                                                               fmt::join(fault_names(), ", ")))
      ->check(not_empty())
      ->type_name("KIND,…");
  command->add_option("--count", options->count, "so many faults, one after another; each kind once by default")
      ->check(whole_number_within(1, 10000))
      ->type_name("N");
  command->add_option("--run-dir", options->run_directory, "gets `undisturbed` and `drilled`; runs/<name>-drill by default")
      ->check(not_empty())
      ->type_name("DIR");
  command->add_option("--undisturbed", options->undisturbed,
                      "a finished run of the same job to compare with, in place of a new one")
      ->check(not_empty())
      ->type_name("RUN");
  command->add_option("--patience", options->patience_seconds, "wait so long for each strike and each return, 300 by default")
      ->check(number_within(1, 1e6))
      ->type_name("SECONDS");
  auto* fault = command->add_option("--fault", options->fault, "on a live run of this host: one fault, now")->type_name("KIND");
  command->add_option("--rank", options->rank, "its rank")->check(whole_number_within(0, 1 << 20))->type_name("N")->needs(fault);
  command->add_flag("--json", options->json, "one JSON document");
  command->footer(
      "Ends with 0 when nothing was lost beyond the steps between two saves, nothing was wrong and nothing is left; with 1 and\n"
      "a sentence for each thing that was otherwise.\n\n"
      "Example:\n  smlp drill examples/demo.toml --faults kill,stop,torn-write --seed 7");
  command->callback([options, &exit_code] {
    exit_code = fs::is_directory(options->job.file) ? drill_live(*options) : drill_job(*options);
  });
}

}  // namespace smlp
