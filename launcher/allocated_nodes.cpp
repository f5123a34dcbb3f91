#include "launcher/allocated_nodes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/layout.h"
#include "core/numbers.h"
#include "launcher/mpi_launch.h"
#include "launcher/node_probe.h"
#include "launcher/preflight.h"
#include "launcher/run_history.h"
#include "slurm/host_list.h"
#include "slurm/steps.h"
#include "slurm/submit_environment.h"

namespace smlp {

namespace {

constexpr double ask_seconds = 10;

// srun knows no other order, whatever its --nodelist says; mpirun keeps ours.
void in_the_order_of(const std::vector<std::string>& all, std::vector<std::string>& some) {
  const auto place = [&](const std::string& node) { return std::find(all.begin(), all.end(), node); };
  std::sort(some.begin(), some.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); });
}

// To what the user, or SLURM itself, has set already.
void add_words(std::vector<std::string>& environment, const std::string& name, const std::string& words) {
  const auto found = std::find_if(environment.begin(), environment.end(),
                                  [&](const std::string& variable) { return variable.starts_with(name + "="); });
  if (found == environment.end()) environment.push_back(fmt::format("{}={}", name, words));
  else *found += " " + words;
}

// coreutils 8.31 or newer; taken to be the same on all nodes.
bool env_blocks_signals() {
  return run_program({"env", "--block-signal=TERM", "true"}, own_environment(), ask_seconds).code == 0;
}

// The first step on a node may wait for SLURM's Prolog there, or for libraries from a disk that all nodes read at once.
template <class Probe>
void probe_silent_ones_again(std::vector<ProbeAnswer>& answers, const Probe& probe) {
  std::vector<std::string> silent;
  for (const auto& answer : answers) {
    if (answer.silent) silent.push_back(answer.node);
  }
  if (silent.empty()) return;
  for (auto& again : probe(silent)) {
    *std::find_if(answers.begin(), answers.end(), [&](const auto& answer) { return answer.node == again.node; }) = again;
  }
}

// Ranks that have no place would be left out in silence.
std::int64_t ranks_a_node(const JobConfig& job, const Allocation& allocation) {
  const auto ranks = job.cluster.ranks, tasks = job.slurm.tasks_per_node;
  if (job.slurm.nodes > 0) {
    if (ranks % tasks == 0) return tasks;
    throw Error(ExitCode::configuration,
                fmt::format("slurm.tasks_per_node = {} does not divide cluster.ranks = {}: no number of nodes has so many; "
                            "change one of them (--ranks)",
                            tasks, ranks));
  }
  const auto there = static_cast<std::int64_t>(allocation.nodes.size()) - job.cluster.spare_nodes;
  const auto nodes = std::max<std::int64_t>(1, there);
  if (ranks <= nodes) return 1;
  if (ranks % nodes == 0) return ranks / nodes;
  throw Error(ExitCode::configuration,
              fmt::format("cluster.ranks = {} can't be shared out evenly over the {} nodes of this allocation that are no "
                          "spare ones: take a multiple of {} (--ranks), or set slurm.nodes and slurm.tasks_per_node",
                          ranks, nodes, nodes));
}

// Room for two more checkpoints like the newest: one being written beside one that is not yet let go.
std::int64_t bytes_needed(const RunDirectory& run) { return 2 * RunHistory(run).bytes_of_newest(); }

}  // namespace

std::optional<std::string> chosen_starter(const JobConfig& job, const Controller& controller) {
  if (job.cluster.launcher != "auto") return job.cluster.launcher;
  const auto types = controller.launch_types();
  if (!types.answered) return std::nullopt;
  return types.has_pmix() ? "srun" : "mpirun";
}

Layout layout_on(const JobConfig& job, const std::vector<std::string>& nodes, std::int64_t ranks_per_node) {
  const auto ranks = static_cast<std::int64_t>(nodes.size()) * ranks_per_node;
  Layout layout;
  layout.ranks = ranks;
  layout.threads = job.cluster.threads;
  layout.expert_ranks = expert_ranks_on(job, ranks);
  layout.ranks_per_node = ranks_per_node;
  layout.nodes = nodes;
  return layout;
}

AllocatedNodes::AllocatedNodes(const JobConfig& job, const RunDirectory& run, const std::filesystem::path& worker,
                               Allocation allocation)
    : job_(job),
      run_(run),
      worker_(std::filesystem::absolute(worker)),
      allocation_(std::move(allocation)),
      starter_(chosen_starter(job, controller_).value_or("mpirun")),
      ranks_per_node_(ranks_a_node(job_, allocation_)),
      nodes_wanted_(std::max<std::int64_t>(1, job_.cluster.ranks / ranks_per_node_)),
      guard_(run) {}

// Nodes that SLURM holds for alive, that answer a probe, and that are fit.
std::vector<std::string> AllocatedNodes::answering(std::vector<std::string>& notes) {
  std::vector<std::string> asked, fit;
  for (const auto& answer : controller_.states_of_nodes(allocation_.node_names())) {
    const bool gone = answer.state == NodeState::down || answer.state == NodeState::not_responding;
    if (gone) {
      notes.push_back(fmt::format("node {} is left out: SLURM calls it {}", answer.name, answer.words));
    } else {
      asked.push_back(answer.name);
    }
  }
  const auto probe = [&](const std::vector<std::string>& nodes) {
    return probe_nodes(nodes, worker_, run_, step_environment(own_environment()), job_.cluster.preflight_seconds);
  };
  auto answers = probe(asked);
  if (!std::exchange(probed_, true)) probe_silent_ones_again(answers, probe);
  for (const auto& verdict : judge(answers, job_, {.ranks_per_node = ranks_per_node_, .free_bytes = bytes_needed(run_)})) {
    notes.insert(notes.end(), verdict.sentences.begin(), verdict.sentences.end());
    if (!verdict.fit) continue;
    fit.push_back(verdict.node);
    const bool ours_alone = verdict.threads > 0 && allocation_.cpus_of(verdict.node) >= verdict.threads;
    cores_[verdict.node] = {.node = verdict.node, .cores = verdict.cores, .ours_alone = ours_alone};
  }
  return fit;
}

Choice AllocatedNodes::choose() {
  Choice choice;
  auto nodes = answering(choice.notes);
  const auto fit = static_cast<std::int64_t>(nodes.size());
  if (fit < std::max<std::int64_t>(1, job_.cluster.min_nodes)) {
    choice.why_not = fmt::format("{} of {} nodes are fit, and {} is the fewest that may go on (cluster.min_nodes)", fit,
                                 allocation_.nodes.size(), job_.cluster.min_nodes);
    return choice;
  }
  guard_.use(nodes);
  if (job_.cluster.exchange_check) leave_out_slow_links(nodes, choice.notes);
  nodes.resize(std::min(nodes.size(), static_cast<std::size_t>(nodes_wanted_)));
  in_the_order_of(allocation_.node_names(), nodes);
  choice.layout = layout_of(nodes);
  if (static_cast<std::int64_t>(nodes.size()) < nodes_wanted_) {
    choice.notes.push_back(fmt::format("of {} wanted nodes {} {} fit: going on with {} ranks", nodes_wanted_,
                                       nodes.size(), nodes.size() == 1 ? "is" : "are", choice.layout->ranks));
  }
  return choice;
}

Layout AllocatedNodes::layout_of(const std::vector<std::string>& nodes) const {
  auto layout = layout_on(job_, nodes, ranks_per_node_);
  layout.starter = starter_;
  std::vector<NodeCores> known;
  for (const auto& node : nodes) {
    const auto found = cores_.find(node);
    known.push_back(found == cores_.end() ? NodeCores{.node = node, .cores = {}, .ours_alone = false} : found->second);
    layout.cores.push_back(known.back().cores);
  }
  layout.binding = choose_binding(job_, ranks_per_node_, known);
  return layout;
}

// A disk without room for the number of a step ends an attempt, not the run.
ProgramAnswer AllocatedNodes::try_exchange(const std::vector<std::string>& nodes) {
  try {
    const auto trial = start(layout_of(nodes), {worker_.string(), "preflight", "--exchange"});
    return run_program(trial.command, trial.environment, job_.cluster.preflight_seconds);
  } catch (const Error& error) {
    return {.code = -1, .out = "", .err = "", .failure = error.what()};
  }
}

// Spare nodes take part: they are measured too, and may take the place of a slow one.
void AllocatedNodes::leave_out_slow_links(std::vector<std::string>& nodes, std::vector<std::string>& notes) {
  const auto reply = try_exchange(nodes);
  const auto verdict = judge_exchange(closing_line(reply.out), job_);
  notes.insert(notes.end(), verdict.sentences.begin(), verdict.sentences.end());
  if (!verdict.failure.empty()) {
    notes.push_back(fmt::format("the exchange between nodes could not be judged: {}",
                                reply.failure.empty() ? verdict.failure : reply.failure));
  }
  if (job_.cluster.slow_nodes != "exclude") return;
  const auto slow = [&](const std::string& node) {
    return std::find(verdict.slow_nodes.begin(), verdict.slow_nodes.end(), node) != verdict.slow_nodes.end();
  };
  const auto kept = std::stable_partition(nodes.begin(), nodes.end(), [&](const auto& node) { return !slow(node); });
  if (std::distance(nodes.begin(), kept) >= job_.cluster.min_nodes) nodes.erase(kept, nodes.end());
}

ProcessStart AllocatedNodes::start(const Layout& layout, const std::vector<std::string>& program) {
  const auto nodes = layout.nodes.size();
  ProcessStart process;
  if (layout.starter == "srun") {
    pass_over_earlier_steps();
    process.command = {"srun",
                       "--mpi=pmix",
                       "--overlap",
                       "--kill-on-bad-exit=1",
                       "--input=none",
                       "--immediate=60",
                       "--job-name=" + step_name_of(run_),
                       "--distribution=block",
                       fmt::format("--nodes={}", nodes),
                       fmt::format("--ntasks={}", layout.ranks),
                       fmt::format("--ntasks-per-node={}", ranks_per_node_),
                       "--nodelist=" + compress_hosts(layout.nodes)};
    // Ranks bind themselves; those that don't are left to SLURM's own rules, if it has any. A number of CPUs gives a step
    // those alone, and memory by them, whatever else the job has there: no fewer than it asked for.
    if (layout.binding.bound || !job_.cluster.bind_cores) process.command.push_back("--cpu-bind=none");
    if (!layout.binding.bound) {
      process.command.push_back(fmt::format("--cpus-per-task={}", std::max(layout.threads, allocation_.cpus_per_task)));
    }
  } else {
    std::vector<std::string> slots;
    for (const auto& node : layout.nodes) slots.push_back(fmt::format("{}:{}", node, ranks_per_node_));
    process.command = {"mpirun", "-n",     fmt::format("{}", layout.ranks), "--host", fmt::format("{}", fmt::join(slots, ",")),
                       "--bind-to", "none", "-x", "OMP_NUM_THREADS"};
  }
  process.command.insert(process.command.end(), program.begin(), program.end());
  process.environment = step_environment(allocation_environment({ranks_per_node_, layout.threads}, fewest_cores(layout)));
  if (layout.starter == "srun") return process;
  // mpirun starts its daemons by an srun of its own, which would wait for what steps hold that ended with a lost node.
  process.environment.push_back("SLURM_OVERLAP=1");
  // SLURM's TERM (scancel, preemption) reaches mpirun and its daemons too, which end the ranks at it: these are to save.
  process.deaf_to_term = true;
  for (const char* of : {"OMPI_MCA_plm_slurm_args", "PRTE_MCA_plm_slurm_args"}) {
    add_words(process.environment, of, "--job-name=" + step_name_of(run_));  // of Open MPI 4 and 5
  }
  constexpr std::array daemons = {std::pair("OMPI_MCA_orte_launch_agent", "orted"),  // of Open MPI 4 and 5
                                  std::pair("PRTE_MCA_prte_launch_agent", "prted")};
  const auto chosen = [](const auto& daemon) { return std::getenv(daemon.first) != nullptr; };
  if (std::none_of(daemons.begin(), daemons.end(), chosen) && env_blocks_signals()) {
    for (const auto& [variable, name] : daemons) {
      process.environment.push_back(fmt::format("{}=env --block-signal=TERM {}", variable, name));
    }
  }
  return process;
}

CoreCount AllocatedNodes::fewest_cores(const Layout& layout) const {
  auto count = count_cores();
  for (const auto& cores : layout.cores) {
    if (!cores.empty()) count.cores = std::min(count.cores, static_cast<std::int64_t>(cores.size()));
  }
  return count;
}

// srun's ids begin at 0 again when a job is requeued.
void AllocatedNodes::pass_over_earlier_steps() {
  const auto file = run_.slurm_steps();
  const auto text = read_if_there(file);
  const auto mark = fmt::format("{} ", allocation_.job_id);
  std::string_view behind = text;
  behind.remove_prefix(text.starts_with(mark) ? mark.size() : text.size());
  const auto used = take_whole_number(behind).value_or(-1);
  std::optional<std::int64_t> number;
  for (int tries = 0; tries < 1000; ++tries) {
    number = take_step_number(step_name_of(run_), ask_seconds);
    if (!number || *number >= used) break;
  }
  if (number) write_atomically(file, fmt::format("{}{}\n", mark, *number + 1));
}

void AllocatedNodes::tend() {
  if (allocation_.in_batch_script) guard_.tend(monotonic_seconds());
}

std::string AllocatedNodes::end_elsewhere(double seconds) {
  const auto name = step_name_of(run_);
  std::optional<std::vector<std::string>> steps;
  const double end = monotonic_seconds() + seconds;
  const auto left = [&] { return end - monotonic_seconds(); };
  while (left() > 0) {
    const auto listed = steps_named(name, allocation_.controller_id(), left());
    if (listed) steps = listed;
    if (steps && steps->empty()) return "";
    if (steps && left() > 0) kill_steps(*steps, left());
    sleep_seconds(0.2);
  }
  if (!steps) return "SLURM does not say whether steps of the attempt are left";
  return fmt::format("steps {} have not ended within {:.0f} s", fmt::join(*steps, ", "), seconds);
}

std::string AllocatedNodes::batch_job() const { return job_words(allocation_); }

Handover AllocatedNodes::hand_over(Leaving leaving, std::int64_t failures) {
  return hand_over_job(controller_, allocation_, leaving, {.earlier = failures, .most = job_.slurm.max_requeues});
}

}  // namespace smlp
