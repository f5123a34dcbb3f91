// The cores of this rank. The launcher says how ranks share a host (`--bind 4x2`: 4 ranks, each 2 cores), the rank takes
// its own by core/cores.h and its local number, which mpirun and srun put into its environment.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/cores.h"

namespace smlp {

// Which rank of its host this is, where mpirun or srun says so.
std::optional<std::int64_t> local_rank();

// Throws Error(usage) where the text is something else.
CoreDemand parse_demand(const std::string& text);

// Binds every thread of this process. A sentence, where it stays as it is: too few cores are left to it, or its local
// number is not known. Before anything else starts threads.
std::string take_own_cores(const CoreDemand& demand);

}  // namespace smlp
