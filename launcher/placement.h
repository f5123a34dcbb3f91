// Which rank is where: what follows from the layout that the launcher chose (launcher/cluster.h), for people. Ranks fill
// one node after another, so that expert groups, whose ranks follow one another, stay close together; what each rank
// takes of cores and experts is computed by the rules that the ranks themselves use (core/cores.h, core/layout.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/job_config.h"
#include "core/layout.h"
#include "launcher/cluster.h"

namespace smlp {

struct Seat {
  std::int64_t rank = 0, local_rank = 0;
  std::string node, device;  // "cpu", "cuda:1", or what is decided there: "cuda", "auto"
  std::vector<int> cpus;     // hardware threads; empty: not bound, or not known before the node is
  ExpertPlace experts;
};

// Of what a rank sends to the experts of its group, on average over all ranks.
struct ExchangeShares {
  double own = 0;      // stays with the rank
  double within = 0;   // goes to other ranks of its node
  double between = 0;  // leaves the node
};

struct Seating {
  std::vector<Seat> seats;  // by rank
  ExchangeShares exchange;
  std::int64_t expert_groups = 1, groups_across_nodes = 0;
  std::int64_t replica_groups = 1, replicas_across_nodes = 0;  // groups that sum expert gradients
};

Seating seat(const Layout& layout, const JobConfig& job);

// What the job file asks SLURM for, where there is no allocation yet: nodes without real names, cores not known.
Layout asked_layout(const JobConfig& job);

}  // namespace smlp
