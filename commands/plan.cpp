#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "commands/commands.h"
#include "commands/data_check.h"
#include "commands/job_options.h"
#include "commands/print_json.h"
#include "commands/submit_check.h"
#include "core/error.h"
#include "core/quantities.h"
#include "launcher/cluster.h"
#include "launcher/mpi_launch.h"
#include "launcher/placement.h"

namespace smlp {

namespace {

struct PlanOptions {
  JobOptions job;
  bool json = false, placement = false, paper = false;
};

int plan_paper(bool json) {
  std::vector<std::string> arguments = {"plan", "--paper"};
  if (json) arguments.push_back("--json");
  return run_worker(arguments, {});
}

int plan(const PlanOptions& options) {
  auto job = load(options.job);
  check_and_resolve(job, Computed::elsewhere);
  resolve_vocabulary(job, false);
  const TemporaryJob file(job.config);
  std::vector<std::string> arguments = {"plan", "--job", file.path().string()};
  if (options.json) arguments.push_back("--json");
  return run_worker(arguments, {.ranks = 1, .threads = job.config.cluster.threads});
}

// Where `run` would put the ranks if it started now; outside of an allocation a job for SLURM as it asks to be placed.
Choice choose(const JobConfig& job) {
  if (!in_allocation() && job.slurm.nodes > 0 && job.cluster.launcher != "local") {
    return {.layout = asked_layout(job), .notes = {"node names are known when SLURM has given the nodes"}, .why_not = ""};
  }
  auto undisturbed = job;
  undisturbed.cluster.exchange_check = false;  // it takes as long as an attempt's start
  const RunDirectory run{std::filesystem::absolute(std::filesystem::path("runs") / job.name)};
  return make_cluster(undisturbed, run, find_worker())->choose();
}

std::string experts_text(const ExpertPlace& place) {
  if (place.experts == 0) return "-";
  if (place.experts == 1) return fmt::format("{}", place.first_expert);
  return fmt::format("{}-{}", place.first_expert, place.first_expert + place.experts - 1);
}

std::string percent(double share) { return fmt::format("{:.3g} %", 100 * share); }

void print(const JobConfig& job, const Choice& choice, const Seating& seating) {
  const auto& layout = *choice.layout;
  std::size_t width = 4;
  for (const auto& seat : seating.seats) width = std::max(width, seat.node.size());
  fmt::print("{}: {} by {}, {} a rank; {}\n", job.name, text_of(layout), layout.starter, counted(layout.threads, "thread"),
             layout.binding.words);
  fmt::print("{:>5}  {:<{}}  {:>5}  {:<12}  {:<7}  {:<9}  {:>6}  {:>8}\n", "rank", "node", width, "local", "processors",
             "device", "experts", "group", "replicas");
  for (const auto& seat : seating.seats) {
    fmt::print("{:>5}  {:<{}}  {:>5}  {:<12}  {:<7}  {:<9}  {:>6}  {:>8}\n", seat.rank, seat.node, width, seat.local_rank,
               seat.cpus.empty() ? "any" : cpu_list(seat.cpus), seat.device, experts_text(seat.experts), seat.experts.group,
               seat.experts.replicas);
  }
  if (job.model.sparse_blocks > 0) {
    const auto& [own, within, between] = seating.exchange;
    fmt::print("tokens for experts: {} stay with their rank, {} go to others of its node, {} between nodes; {} of {} expert "
               "groups span nodes\n", percent(own), percent(within), percent(between), seating.groups_across_nodes,
               seating.expert_groups);
    fmt::print("sums of expert gradients: {} of {} groups of replicas span nodes\n", seating.replicas_across_nodes,
               seating.replica_groups);
  }
  for (const auto& note : choice.notes) fmt::print("{}\n", note);
}

nlohmann::ordered_json to_json(const JobConfig& job, const Choice& choice, const Seating& seating) {
  const auto& layout = *choice.layout;
  nlohmann::ordered_json ranks = nlohmann::json::array();
  for (const auto& seat : seating.seats) {
    const auto& [group, replicas, first, experts] = seat.experts;
    nlohmann::ordered_json held = nlohmann::json::array();
    for (auto expert = first; expert < first + experts; ++expert) held.push_back(expert);
    nlohmann::ordered_json processors;
    if (!seat.cpus.empty()) processors = seat.cpus;
    ranks.push_back({{"rank", seat.rank}, {"node", seat.node}, {"local_rank", seat.local_rank}, {"processors", processors},
                     {"device", seat.device}, {"experts", held}, {"expert_group", group}, {"replica_group", replicas}});
  }
  return {{"name", job.name},
          {"starter", layout.starter},
          {"threads", layout.threads},
          {"expert_ranks", layout.expert_ranks},
          {"bound", layout.binding.bound},
          {"binding", layout.binding.words},
          {"ranks", ranks},
          {"exchange",
           {{"own", seating.exchange.own}, {"within_node", seating.exchange.within}, {"between_nodes", seating.exchange.between},
            {"expert_groups", seating.expert_groups}, {"expert_groups_across_nodes", seating.groups_across_nodes},
            {"replica_groups", seating.replica_groups}, {"replica_groups_across_nodes", seating.replicas_across_nodes}}},
          {"notes", choice.notes}};
}

void show_placement(const PlanOptions& options) {
  auto job = load(options.job);
  if (job.config.slurm.nodes > 0 && job.config.cluster.launcher != "local") size_for_slurm(job, options.job.ranks);
  check_and_resolve(job, Computed::elsewhere);
  const auto choice = choose(job.config);
  if (!choice.layout) throw Error(ExitCode::unavailable, choice.why_not);
  const auto seating = seat(*choice.layout, job.config);
  if (options.json) {
    print_json(to_json(job.config, choice, seating));
  } else {
    print(job.config, choice, seating);
  }
}

}  // namespace

void add_plan_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<PlanOptions>();
  auto* command = app.add_subcommand("plan", "counts, memory, exchange and checkpoint size of a job, without running it");
  add_job_options(*command, options->job);
  command->get_option("JOB")->required(false);
  auto* paper = command->add_flag("--paper", options->paper, "the models of the paper's tables, our counts beside its own");
  command->add_flag("--json", options->json, "one JSON document");
  command->add_flag("--placement", options->placement,
                    "instead: the node, processors, experts and groups of every rank; in an allocation on its nodes as they "
                    "are now, elsewhere on those that the job asks for");
  for (const char* of_a_job : {"JOB", "--set", "--ranks", "--placement"}) paper->excludes(command->get_option(of_a_job));
  command->footer(
      "Example:\n  smlp plan examples/demo.toml --ranks 4\n  smlp plan examples/demo.toml --placement\n  smlp plan --paper");
  command->callback([options, &exit_code] {
    if (options->paper) {
      exit_code = plan_paper(options->json);
      return;
    }
    if (options->job.file.empty()) {
      throw Error(ExitCode::usage, "smlp plan: JOB is required, or --paper; `smlp plan --help` says more");
    }
    if (options->placement) return show_placement(*options);
    exit_code = plan(*options);
  });
}

}  // namespace smlp
