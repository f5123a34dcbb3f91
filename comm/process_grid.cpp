#include <fmt/format.h>

#include "comm/communicator.h"
#include "core/error.h"
#include "core/layout.h"

namespace smlp {

ProcessGrid ProcessGrid::cut(std::unique_ptr<Communicator> world, int expert_ranks) {
  const int rank = world->rank(), ranks = world->size();
  if (expert_ranks < 1 || ranks % expert_ranks != 0) {
    throw Error(
        ExitCode::configuration,
        fmt::format("{} ranks can't be cut into expert groups of {}: cluster.expert_ranks must divide the "
                    "number of ranks",
                    ranks, expert_ranks));
  }
  const auto place = expert_place(rank, expert_ranks, 0);
  auto experts = world->split(static_cast<int>(place.group), rank);
  auto replicas = world->split(static_cast<int>(place.replicas), rank);
  return {std::move(world), std::move(experts), std::move(replicas)};
}

}  // namespace smlp
