// smlp-worker: one rank. `train` is what the launcher starts through mpirun or srun; the other modes do for the
// commands of `smlp` what needs the model.
#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <new>
#include <system_error>

#include "core/clock.h"
#include "core/cores.h"
#include "core/error.h"
#include "core/files.h"
#include "core/job_file.h"
#include "core/layout.h"
#include "core/tell.h"
#include "worker/commands.h"
#include "worker/control.h"
#include "worker/own_cores.h"
#include "worker/preflight.h"
#include "worker/signals.h"
#include "worker/trainer.h"
#include "worker/world.h"

namespace smlp {
namespace {

int rank_from_environment() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}) {
    if (const char* value = std::getenv(name)) return std::atoi(value);
  }
  return 0;
}

void log_to(const std::filesystem::path& file) try {
  auto logger = spdlog::basic_logger_mt("worker", file.string());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
} catch (const spdlog::spdlog_ex& error) {
  throw Error(ExitCode::io_failed, fmt::format("the log {} can't be written: {}", file.string(), error.what()));
}

// Held by every living rank, so that the launcher sees who is left of an earlier attempt. It looks by taking the lock for a
// moment, which is waited for.
FileLock sign_of_life(const RunDirectory& run) {
  constexpr double patience = 5;
  auto lock = FileLock::try_lock(run.workers_lock(), FileLock::Kind::shared);
  for (const double end = monotonic_seconds() + patience; !lock.held() && monotonic_seconds() < end;) {
    sleep_seconds(0.01);
    lock = FileLock::try_lock(run.workers_lock(), FileLock::Kind::shared);
  }
  return lock;
}

constexpr const char* no_thread =
    "no thread could be started: the limit on processes (`ulimit -u`, the pids of the job's cgroup or container) is reached";

// The launcher shows this sentence when the attempt ends.
void leave_sentence(const RunDirectory& run, int attempt, int rank, const std::string& sentence) {
  try {
    write_atomically(run.error(attempt, rank), sentence + "\n");
  } catch (const std::exception&) {
    // The disk may be what failed; stderr still has the sentence.
  }
}

nlohmann::json place_of(const Heartbeat& heartbeat) {
  const auto place = heartbeat.place();
  return {{"section", name_of(place.section)}, {"step", place.step}, {"progress", place.sequence},
          {"seconds", place.seconds}};
}

void log_place(const JobConfig& job, const Communicator& world) {
  std::vector<int> cpus;
  for (const auto& core : cores_here()) cpus.insert(cpus.end(), core.begin(), core.end());
  std::sort(cpus.begin(), cpus.end());
  const auto place = expert_place(world.rank(), job.cluster.expert_ranks, job.model.experts);
  spdlog::info("rank {} of {} on processors {}, expert group {}, replicas {}", world.rank(), world.size(), cpu_list(cpus),
               place.group, place.replicas);
}

ExitCode train(const TrainerOptions& options, const std::string& unbound) {
  die_with_parent();
  install_stop_signals();
  const int rank = rank_from_environment();
  auto alive = FileLock::none();
  const auto report = [&](const std::string& sentence) {
    spdlog::critical("{}", sentence);
    leave_sentence(options.run, options.attempt, rank, fmt::format("rank {}: {}", rank, sentence));
  };
  try {
    std::filesystem::create_directories(options.run.log_folder(options.attempt));
    log_to(options.run.log(options.attempt, rank));
    alive = sign_of_life(options.run);
    auto job = load_job(options.run.job());
    check_and_resolve(job);
    if (const int newer = attempt_in_charge(options.run.checkpoints()); newer > options.attempt) {
      throw Error(ExitCode::fault, fmt::format("attempt {} has begun since: attempt {} is over", newer, options.attempt));
    }
    std::filesystem::create_directories(options.run.heartbeats());
    const auto& cluster = job.config.cluster;
    Heartbeat heartbeat(options.run, options.attempt, rank,
                        {cluster.hang_floor_seconds, cluster.hang_factor, cluster.hang_ceiling_seconds}, report);
    Control control(options.run, options.attempt, rank, pthread_self(), [&heartbeat] { return place_of(heartbeat); });
    auto backend = make_backend(job.config);
    auto world = join_world(*backend, job.config.cluster.communicator);
    spread_over(job.config, world->size());
    auto grid = ProcessGrid::cut(std::move(world), static_cast<int>(job.config.cluster.expert_ranks));
    if (!unbound.empty()) spdlog::warn("{}", unbound);
    log_place(job.config, *grid.world);
    auto engine = std::make_unique<Engine>(job.config, std::move(backend), std::move(grid), true);
    Trainer trainer(job.config, options, std::move(engine), heartbeat, control);
    const auto code = trainer.run();
    if (code == ExitCode::diverged && rank == 0) leave_sentence(options.run, options.attempt, rank, trainer.why_diverged());
    heartbeat.enter(Section::finish, 0);
    return code;
  } catch (const std::bad_alloc&) {
    report(out_of_memory);
    throw Error(ExitCode::fault, out_of_memory);  // which is tried again: there may be more another time
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::resource_unavailable_try_again) {
      report(error.what());
      throw;
    }
    report(no_thread);
    throw Error(ExitCode::fault, no_thread);
  } catch (const std::exception& error) {
    report(error.what());
    throw;
  }
}

JobConfig resolved_job(const std::string& file, Computed computed = Computed::here) {
  auto job = load_job(file);
  check_and_resolve(job, computed);
  return job.config;
}

// Each mode of the program adds itself to `app`, and what it is called with lives as long as that.
void add_train_mode(CLI::App& app, const std::string& unbound, ExitCode& code) {
  struct Options {
    TrainerOptions training;
    std::int64_t not_after = -1;
    std::string init_from;
  };
  const auto options = std::make_shared<Options>();
  auto* mode = app.add_subcommand("train", "trains in a run directory until done or asked to leave");
  mode->add_option("--run-dir", options->training.run.root)->required();
  mode->add_option("--attempt", options->training.attempt)->required();
  mode->add_option("--not-after", options->not_after, "use no checkpoint newer than this step");
  mode->add_option("--init-from", options->init_from, "weights for a run without a checkpoint");
  mode->callback([options, &unbound, &code] {
    if (options->not_after >= 0) options->training.not_after = options->not_after;
    if (!options->init_from.empty()) options->training.init_from = options->init_from;
    code = train(options->training, unbound);
  });
}

void add_evaluate_mode(CLI::App& app) {
  struct Options {
    std::string checkpoint, data;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();
  auto* mode = app.add_subcommand("eval", "loss of a checkpoint on a token file");
  mode->add_option("--checkpoint", options->checkpoint)->required();
  mode->add_option("--data", options->data)->required();
  mode->add_flag("--json", options->json);
  mode->callback([options] { evaluate_command(options->checkpoint, options->data, options->json); });
}

void add_generate_mode(CLI::App& app) {
  struct Options {
    std::string checkpoint, prompt;
    GenerationSettings settings;
  };
  const auto options = std::make_shared<Options>();
  auto* mode = app.add_subcommand("generate", "text from a checkpoint");
  mode->add_option("--checkpoint", options->checkpoint)->required();
  mode->add_option("--prompt", options->prompt)->required();
  mode->add_option("--tokens", options->settings.tokens);
  mode->add_option("--temperature", options->settings.temperature);
  mode->add_option("--top-k", options->settings.top_k);
  mode->add_option("--seed", options->settings.seed);
  mode->callback([options] { generate_command(options->checkpoint, options->prompt, options->settings); });
}

void add_plan_mode(CLI::App& app) {
  struct Options {
    std::string job;
    bool paper = false, json = false, tensors = false;
  };
  const auto options = std::make_shared<Options>();
  auto* mode = app.add_subcommand("plan", "counts and memory of a job, without allocating it");
  auto* job = mode->add_option("--job", options->job);
  mode->add_flag("--paper", options->paper, "the models of the paper")->excludes(job);
  mode->add_flag("--json", options->json);
  mode->add_flag("--tensors", options->tensors, "names, types and shapes of a checkpoint's weights");
  mode->callback([options] {
    if (options->paper) return paper_plan_command(options->json);
    if (options->job.empty()) throw CLI::RequiredError("--job or --paper");
    const auto resolved = resolved_job(options->job, Computed::elsewhere);
    if (options->tensors) return plan_tensors_command(resolved);
    plan_command(resolved, options->json);
  });
}

void add_causality_mode(CLI::App& app, ExitCode& code) {
  struct Options {
    std::string job;
    CausalityOptions causality;
  };
  const auto options = std::make_shared<Options>();
  auto* mode = app.add_subcommand("causality", "whether a model's tokens see later ones");
  mode->add_option("--job", options->job)->required();
  mode->add_option("--checkpoint", options->causality.checkpoint);
  mode->add_option("--positions", options->causality.tries);
  mode->add_option("--seed", options->causality.seed);
  mode->add_flag("--json", options->causality.json);
  mode->callback([options, &code] {
    // What a checkpoint says of its job is not the whole of it: how it was spread is not there to be checked.
    const auto job = options->causality.checkpoint ? load_job(options->job).config
                                                   : resolved_job(options->job, Computed::elsewhere);
    if (!causality_command(job, options->causality)) code = ExitCode::difference;
  });
}

void add_bench_mode(CLI::App& app) {
  struct Options {
    std::string what, job;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();
  auto* mode = app.add_subcommand("bench", "measures, beside the machine's own limit");
  mode->add_option("what", options->what)->required();
  mode->add_option("--job", options->job)->required();
  mode->add_flag("--json", options->json);
  mode->callback([options] { bench_command(options->what, resolved_job(options->job), options->json); });
}

void add_preflight_mode(CLI::App& app) {
  struct Options {
    PreflightOptions preflight;
    bool exchange = false;
  };
  const auto options = std::make_shared<Options>();
  auto& of_node = options->preflight;
  auto* mode = app.add_subcommand("preflight", "what this node can do, as one line of JSON");
  auto* run_dir = mode->add_option("--run-dir", of_node.run_dir);
  mode->add_flag("--made-later", of_node.run_dir_made_later, "the run directory need not be there yet")->needs(run_dir);
  mode->add_option("--job", of_node.job)->needs(run_dir);
  mode->add_flag("--exchange", options->exchange, "under MPI: how fast ranks exchange, in pairs")->excludes(run_dir);
  mode->callback([options] {
    if (options->exchange) return preflight_exchange_command();
    if (options->preflight.run_dir.empty()) throw CLI::RequiredError("--run-dir or --exchange");
    preflight_command(options->preflight);
  });
}

int run(int argc, char** argv) {
  CLI::App app{"One rank of smlp; started by `smlp`, seldom by hand.", "smlp-worker"};
  app.require_subcommand(1);
  app.fallthrough();
  std::string bind, unbound;
  app.add_option("--bind", bind, "RANKSxCORES: of so many ranks of this host, each takes so many cores");
  app.parse_complete_callback([&] {
    if (!bind.empty()) unbound = take_own_cores(parse_demand(bind));
  });
  ExitCode code = ExitCode::done;
  add_train_mode(app, unbound, code);
  add_evaluate_mode(app);
  add_generate_mode(app);
  add_plan_mode(app);
  add_causality_mode(app, code);
  add_bench_mode(app);
  add_preflight_mode(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    return status == 0 ? 0 : static_cast<int>(ExitCode::usage);
  }
  return static_cast<int>(code);
}

}  // namespace
}  // namespace smlp

int main(int argc, char** argv) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("smlp"));
  spdlog::set_pattern("smlp-worker: %v");
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may grow no more (`ulimit -f`) is a write that fails, and told
  int status = static_cast<int>(smlp::ExitCode::fault);
  try {
    status = smlp::run(argc, argv);
    smlp::leave_world();
    if ((std::fflush(stdout) == 0 && std::ferror(stdout) == 0) || status != 0) return status;
    smlp::tell("writing to the standard output failed");
    return static_cast<int>(smlp::ExitCode::io_failed);
  } catch (const smlp::Error& error) {
    status = static_cast<int>(error.code());
    smlp::tell("{}", error.what());
  } catch (const std::system_error& error) {  // file system errors and failed prints among them
    status = static_cast<int>(smlp::ExitCode::io_failed);
    smlp::tell("{}", error.what());
  } catch (const std::bad_alloc&) {
    status = static_cast<int>(smlp::ExitCode::unavailable);
    smlp::tell("{}", smlp::out_of_memory);
  } catch (const std::exception& error) {
    smlp::tell("{}", error.what());
  }
  smlp::end_world(status);
}
