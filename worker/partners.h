// Who holds whose copies in the node-local tier: a ring over the nodes, so that the loss of any one node leaves a copy
// of each shard on the next. Plain functions of the ranks' host names.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace smlp {

struct Partners {
  std::optional<int> to;   // holds my copies; nobody for a lone rank
  std::vector<int> from;   // whose copies I hold, ascending
};

// Rank i of a node goes to rank i of the next node (modulo what that has); where all ranks are on one node, to the next
// rank. Nodes are in the order in which ranks first name them.
Partners partners_of(int rank, std::span<const std::string> hosts);

}  // namespace smlp
