// The processor cores of a host, and which of them a rank takes there: the launcher decides by these rules whether
// ranks are bound, `smlp plan --placement` shows what follows, and each rank binds itself by them. So the same cores are
// taken whatever starts the ranks: mpirun, srun with any task plugin or none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace smlp {

using Core = std::vector<int>;  // a physical core by its hardware threads, ascending

// Those that this process may use, by package and core number; hardware threads that it may not use are left out.
// Empty where the system does not say.
std::vector<Core> cores_here();

// Hardware threads that this process may use, 1 at least.
std::int64_t threads_here();

struct CoreDemand {
  std::int64_t ranks = 1;  // on the host
  std::int64_t each = 1;   // cores a rank
};

// Cores for all, and either the host is ours alone or a second job of this size would find no room anyway: jobs
// that share a host would otherwise all take the same cores.
bool may_bind(const CoreDemand& demand, std::int64_t cores, bool ours_alone);

// The hardware threads of the cores that a rank takes, ascending: ranks are spread evenly over the cores, so that all
// packages are used. Empty where there are too few for all ranks.
std::vector<int> cpus_of_rank(const std::vector<Core>& cores, const CoreDemand& demand, std::int64_t local_rank);

std::string cpu_list(const std::vector<int>& cpus);  // "0-3,8"

// All threads of this process, from now on. Throws Error(unavailable) where the system refuses.
void bind_to(const std::vector<int>& cpus);

}  // namespace smlp
