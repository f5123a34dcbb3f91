#include "launcher/placement.h"

#include <fmt/format.h>

#include <set>

#include "core/files.h"
#include "core/host_name.h"
#include "launcher/allocated_nodes.h"
#include "launcher/processes.h"

namespace smlp {

namespace {

std::size_t node_of(const Layout& layout, std::int64_t rank) {
  return layout.nodes.empty() ? 0 : static_cast<std::size_t>(rank / layout.ranks_per_node);
}

// Groups of which not all ranks are on one node; `group_of` numbers them.
template <class GroupOf>
std::int64_t across_nodes(const Layout& layout, std::int64_t groups, GroupOf group_of) {
  std::vector<std::set<std::size_t>> nodes(static_cast<std::size_t>(groups));
  for (std::int64_t rank = 0; rank < layout.ranks; ++rank) {
    nodes[static_cast<std::size_t>(group_of(rank))].insert(node_of(layout, rank));
  }
  std::int64_t count = 0;
  for (const auto& some : nodes) count += some.size() > 1 ? 1 : 0;
  return count;
}

// As far as it follows from the job: "auto" is a GPU where the node has one, and ranks that talk through their hosts may share.
std::string device_of(const JobConfig& job, std::int64_t local_rank) {
  if (!may_use_gpus(job)) return "cpu";
  if (job.cluster.device == "auto") return "auto";
  return job.cluster.communicator == "staged" ? "cuda" : fmt::format("cuda:{}", local_rank);
}

ExchangeShares exchange_of(const Layout& layout) {
  ExchangeShares shares;
  std::int64_t within = 0;
  for (std::int64_t rank = 0; rank < layout.ranks; ++rank) {
    const auto first = rank / layout.expert_ranks * layout.expert_ranks;
    for (auto other = first; other < first + layout.expert_ranks; ++other) {
      within += other != rank && node_of(layout, other) == node_of(layout, rank) ? 1 : 0;
    }
  }
  const auto pairs = static_cast<double>(layout.ranks * layout.expert_ranks);
  shares.own = 1.0 / static_cast<double>(layout.expert_ranks);
  shares.within = static_cast<double>(within) / pairs;
  shares.between = (pairs - static_cast<double>(layout.ranks + within)) / pairs;
  return shares;
}

}  // namespace

Seating seat(const Layout& layout, const JobConfig& job) {
  const auto experts = job.model.sparse_blocks > 0 ? job.model.experts : 0;
  const auto place_of = [&](std::int64_t rank) { return expert_place(rank, layout.expert_ranks, experts); };
  Seating seating;
  for (std::int64_t rank = 0; rank < layout.ranks; ++rank) {
    const auto node = node_of(layout, rank);
    Seat one;
    one.rank = rank;
    one.local_rank = layout.nodes.empty() ? rank : rank % layout.ranks_per_node;
    one.node = layout.nodes.empty() ? host_name() : layout.nodes[node];
    one.device = device_of(job, one.local_rank);
    one.experts = place_of(rank);
    if (layout.binding.bound && node < layout.cores.size()) {
      one.cpus = cpus_of_rank(layout.cores[node], {layout.ranks_per_node, layout.threads}, one.local_rank);
    }
    seating.seats.push_back(std::move(one));
  }
  seating.exchange = exchange_of(layout);
  seating.expert_groups = layout.ranks / layout.expert_ranks;
  seating.replica_groups = layout.expert_ranks;
  seating.groups_across_nodes =
      across_nodes(layout, seating.expert_groups, [&](std::int64_t rank) { return place_of(rank).group; });
  seating.replicas_across_nodes =
      across_nodes(layout, seating.replica_groups, [&](std::int64_t rank) { return place_of(rank).replicas; });
  return seating;
}

Layout asked_layout(const JobConfig& job) {
  std::vector<std::string> nodes;
  for (std::int64_t node = 1; node <= job.slurm.nodes; ++node) nodes.push_back(fmt::format("node{}", node));
  auto layout = layout_on(job, nodes, job.slurm.tasks_per_node);
  layout.starter = chosen_starter(job, Controller()).value_or("srun or mpirun");
  layout.binding = {.bound = false, .words = "whether ranks are bound to cores is decided by what the nodes have"};
  if (!job.cluster.bind_cores) layout.binding.words = "ranks are not bound to cores (cluster.bind_cores)";
  return layout;
}

}  // namespace smlp
