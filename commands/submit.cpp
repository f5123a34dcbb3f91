#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/checkpoint.h"
#include "commands/changed_model.h"
#include "commands/commands.h"
#include "commands/data_check.h"
#include "commands/init_from.h"
#include "commands/job_of_run.h"
#include "commands/print_json.h"
#include "commands/start_options.h"
#include "commands/submit_check.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/features.h"
#include "core/files.h"
#include "core/json_text.h"
#include "core/tell.h"
#include "launcher/queue_look.h"
#include "launcher/run_history.h"
#include "launcher/run_lock.h"
#include "launcher/run_setup.h"
#include "slurm/batch_script.h"

namespace smlp {

namespace {

struct SubmitOptions : StartOptions {
  bool dry_run = false, json = false;
};

struct Prepared {
  LoadedJob job;
  RunDirectory run;
  std::string snapshot_text, script_text;
  BatchScript script;
};

// As `run` would resolve it, with what is derived from the number of ranks left open: the job may go on with others.
std::string snapshot_of(const JobConfig& resolved, const JobConfig& as_written) {
  auto snapshot = resolved;
  snapshot.cluster.expert_ranks = as_written.cluster.expert_ranks;
  snapshot.routing.group_sequences = as_written.routing.group_sequences;
  snapshot.schedule.decay_steps = as_written.schedule.decay_steps;
  return to_toml(snapshot);
}

// The words for `smlp run` that this command was given.
std::vector<std::string> run_options(const SubmitOptions& options) {
  std::vector<std::string> words;
  if (options.max_restarts >= 0) words.insert(words.end(), {"--max-restarts", std::to_string(options.max_restarts)});
  if (!options.settings.init_from.empty()) words.insert(words.end(), {"--init-from", options.settings.init_from});
  for (const auto& key : options.settings.accepted_changes) words.insert(words.end(), {"--accept-change", key});
  return words;
}

// Of its own where an earlier job may wait still and has other settings: SLURM keeps a copy of the script alone.
std::filesystem::path snapshot_file(const RunDirectory& run, const std::string& text, bool earlier_may_wait) {
  auto file = run.submitted_job();
  if (!earlier_may_wait) return file;
  for (int next = 2; std::filesystem::exists(file) && read_if_there(file) != text; ++next) {
    file = run.root / fmt::format("submit-{}.toml", next);
  }
  return file;
}

// The script, by the file that it will name; refuses what no script can name.
void make_script(Prepared& p, bool earlier_may_wait) {
  p.script.job_file = snapshot_file(p.run, p.snapshot_text, earlier_may_wait);
  p.script_text = text_of(p.script, p.job.config);
}

// What `smlp run` will refuse beside the checkpoints that are there, and what it will not use.
void check_beside_checkpoints(SubmitOptions& options, const Prepared& p, const JobOfRun& before) {
  if (!options.init_from.empty()) tell("--init-from is not used: {} goes on from its own checkpoints", p.run.root.string());
  options.init_from.clear();
  check_same_tokenizer(p.run, before, p.job.config, options.settings.accepted_changes);
  auto settings = options.settings;
  settings.expect_possible = [&](const auto& changed) { expect_same_tensors(before, p.job, changed); };
  expect_job_of_run(p.run, p.job, &before.config, settings);
}

// Everything that can be found wrong without touching a file.
Prepared prepare(SubmitOptions& options, const Controller& controller) {
  Prepared p{.job = load(options.job), .run = {}, .snapshot_text = "", .script_text = "", .script = {}};
  auto& job = p.job;
  size_for_slurm(job, options.job.ranks);
  const auto as_written = job.config;
  check_name(job);
  p.run.root = std::filesystem::absolute(run_directory_of(options, job.config)).lexically_normal();
  if (!p.run.root.has_filename()) p.run.root = p.run.root.parent_path();
  const auto before = has_runs_of_their_own(job.config) ? std::nullopt : job_of_run(p.run);
  if (before) keep_resolved(job, before->config);
  {
    auto without_data = job;
    check_and_resolve(without_data);
    need_ranks(without_data.config.cluster.ranks);
  }
  resolve_vocabulary(job, true);
  check_data(job);
  check_and_resolve(job);
  if (before) tell_of_flat_rate(job.config);
  p.snapshot_text = snapshot_of(job.config, as_written);
  for (const auto& key : options.settings.accepted_changes) value_of(job.config, key);  // refuses an unknown one
  if (before) check_beside_checkpoints(options, p, *before);
  if (!options.init_from.empty()) {
    options.settings.init_from = weights_to_begin_with(options.init_from, job.config, options.settings.accepted_changes).string();
  }

  const auto costs = measured_costs(p.run);
  p.script.program = std::filesystem::read_symlink("/proc/self/exe");
  p.script.run_directory = p.run.root;
  p.script.working_directory = std::filesystem::current_path();
  p.script.run_options = run_options(options);
  p.script.warning_seconds = warning_seconds(job.config.slurm.signal_seconds, costs);
  make_script(p, !job.config.slurm.dependency.empty());

  std::vector<std::string> notes;
  check_time_limit(job, costs, p.script.warning_seconds);
  check_writable(p.run);
  const auto counts = counts_of(job, notes);
  check_disk(job, p.run, counts, notes);
  check_memory(job, counts, notes);
  check_partition(job, controller, notes);
  for (const auto& note : notes) tell("{}", note);
  return p;
}

// From the look at earlier jobs until the new one's number is written: two that looked at the same time would both submit.
FileLock submit_alone(const RunDirectory& run) {
  auto lock = FileLock::try_lock(run.submit_lock(), FileLock::Kind::exclusive);
  if (lock.held()) return lock;
  throw Error(ExitCode::call_again, fmt::format("another `smlp submit` into {} is under way; once it has ended, `smlp status` "
                                                "shows its job",
                                                run.root.string()));
}

// The run is another job's where this one waits for it: it may be live, and its ranks read these files at each start.
void prepare_files_of_run(const Prepared& p, const SubmitOptions& options) {
  if (!p.job.config.slurm.dependency.empty() && !submitted_jobs(p.run).empty()) return;
  const auto lock = take_run(p.run);  // let go before the job can start
  if (has_runs_of_their_own(p.job.config)) return;
  auto settings = options.settings;
  settings.starts_now = false;
  const auto before = job_of_run(p.run);
  prepare_run(p.run, p.job, before ? &before->config : nullptr, settings);
}

void write_files(const Prepared& p, const SubmitOptions& options) {
  prepare_files_of_run(p, options);
  write_durably(p.script.job_file, p.snapshot_text);
  write_durably(p.run.submit_script(), p.script_text);
}

void record(const RunDirectory& run, const std::string& job_id) {
  const nlohmann::json line = {{"time", utc_time()}, {"event", "submitted"}, {"attempt", 0}, {"job_id", job_id},
                               {"detail", fmt::format("job {} by {}", job_id, run.submit_script().string())}};
  try {
    append_line(run.events(), json_text(line));
  } catch (const Error& error) {
    tell("{}; job {} is submitted all the same", error.what(), job_id);
  }
}

void submit(SubmitOptions options) {
  const Controller controller;
  auto p = prepare(options, controller);
  const auto script = p.run.submit_script().string();
  if (options.dry_run && options.json) {
    return print_json({{"job_id", nullptr}, {"run_dir", p.run.root.string()}, {"script", script},
                       {"text", p.script_text}});
  }
  if (options.dry_run) return fmt::print("{}", p.script_text);

  if (!Controller::present()) {
    throw Error(ExitCode::unavailable, "there is no sbatch on PATH: submit where SLURM is installed, train here with "
                                       "`smlp run`, or see the script with --dry-run");
  }
  make_folder_of_run(p.run.logs());  // SLURM writes there, and makes no folder
  const auto alone = submit_alone(p.run);
  make_script(p, check_earlier_submissions(p.job, p.run, controller));
  write_files(p, options);
  const auto answer = controller.submit(script);
  if (!answer.job_id) {
    throw Error(answer.refused ? ExitCode::configuration : ExitCode::unavailable,
                fmt::format("the job was not submitted: {}", answer.words));
  }
  record(p.run, *answer.job_id);
  if (options.json) {
    return print_json({{"job_id", *answer.job_id}, {"run_dir", p.run.root.string()}, {"script", script}});
  }
  const auto& c = p.job.config;
  fmt::print("{}: job {}, {} ranks on {} nodes{}\nruns in {}\n", c.name, *answer.job_id, c.cluster.ranks, c.slurm.nodes,
             c.cluster.spare_nodes > 0 ? fmt::format(" and {} spare", c.cluster.spare_nodes) : "", p.run.root.string());
}

}  // namespace

void add_submit_command(CLI::App& app) {
  const auto options = std::make_shared<SubmitOptions>();
  auto* command = app.add_subcommand("submit", "trains in a SLURM batch job; goes on where the run directory stands");
  add_start_options(*command, *options);
  command->add_flag("--dry-run", options->dry_run, "check and print the batch script; touch nothing");
  command->add_flag("--json", options->json, "one JSON document");
  command->footer(
      "Section [slurm] of the job says what to ask for; the job file is read now, later changes of it do not reach the "
      "job.\n\nExample:\n  smlp submit examples/demo.toml --set slurm.time_limit=4:00:00 --dry-run");
  command->callback([options] { submit(*options); });
}

}  // namespace smlp
