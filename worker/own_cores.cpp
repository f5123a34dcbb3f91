#include "worker/own_cores.h"

#include <fmt/format.h>

#include <cstdlib>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/numbers.h"

namespace smlp {

std::optional<std::int64_t> local_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}) {
    if (const char* value = std::getenv(name)) return parse_whole_number(value);
  }
  return std::nullopt;
}

CoreDemand parse_demand(const std::string& text) {
  const auto cross = std::string_view(text).find('x');
  if (cross != std::string_view::npos) {
    const auto ranks = parse_whole_number(std::string_view(text).substr(0, cross));
    const auto each = parse_whole_number(std::string_view(text).substr(cross + 1));
    if (ranks && each && *ranks > 0 && *each > 0) return {.ranks = *ranks, .each = *each};
  }
  throw Error(ExitCode::usage, fmt::format("--bind wants RANKSxCORES, as in 4x2, not '{}'", text));
}

std::string take_own_cores(const CoreDemand& demand) {
  const auto local = demand.ranks == 1 ? std::optional<std::int64_t>(0) : local_rank();
  if (!local) return "not bound to cores: neither mpirun nor srun says which rank of its host this is";
  const auto cores = cores_here();
  const auto cpus = cpus_of_rank(cores, demand, *local);
  if (cpus.empty()) {
    return fmt::format("not bound to cores: {} are left to rank {} of this host, and {} ranks were to have {} each", cores.size(),
                       *local, demand.ranks, demand.each);
  }
  bind_to(cpus);
  return "";
}

}  // namespace smlp
