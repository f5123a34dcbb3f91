#include "worker/world.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "core/features.h"
#include "core/numbers.h"
#include "worker/gpu_ranks.h"

namespace smlp {

namespace {
std::unique_ptr<Communicator>& kept_aside() {
  static std::unique_ptr<Communicator> communicator;
  return communicator;
}

// One of one, in the words of mpirun and srun.
bool alone() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"}) {
    if (const char* size = std::getenv(name)) return std::string_view(size) == "1";
  }
  return false;
}

// Ranks that an MPI of another kind than their starter's take for worlds of one would all write the same run.
void expect_all_ranks(int found) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* text = std::getenv(name);
    const auto started = parse_whole_number(text ? text : "");
    if (!started) continue;
    if (*started == found) return;
    throw Error(ExitCode::unavailable,
                fmt::format("{} says that {} ranks were started, and MPI knows of {}: the MPI that smlp was built with does not "
                            "understand what starts its ranks; build it with the cluster's Open MPI, or choose "
                            "cluster.launcher = \"mpirun\"",
                            name, *started, found));
  }
}
}  // namespace

bool started_by_mpi() {
  if (!built_with_mpi() && alone()) return false;
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

std::unique_ptr<Communicator> join_world(Backend& backend, const std::string& communicator) {
  if (!started_by_mpi()) return make_solo(backend);
  auto world = make_mpi_world();
  kept_aside() = world->split(0, world->rank());  // MPI lives until main has said what an exception says
  expect_all_ranks(world->size());
  if (!built_with_cuda()) return world;
  return join_gpus(std::move(world), backend, communicator, built_with_nccl());
}

void leave_world() { kept_aside().reset(); }

void end_world(int status) noexcept {
  std::fflush(nullptr);
  if (kept_aside()) kept_aside()->abort(status);
  std::_Exit(status);
}

}  // namespace smlp
