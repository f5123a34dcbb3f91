#include "core/features.h"

#include <fmt/format.h>

#include "core/error.h"

namespace smlp {

bool built_with_cuda() { return SMLP_WITH_CUDA; }
bool built_with_nccl() { return SMLP_WITH_NCCL; }
bool built_with_mpi() { return SMLP_WITH_MPI; }
bool built_with_hdf5() { return SMLP_WITH_HDF5; }

std::string left_out() {
  std::string names;
  const auto add = [&](bool there, const char* name) {
    if (!there) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
  };
  add(SMLP_WITH_MPI, "MPI");
  add(SMLP_WITH_HDF5, "HDF5");
  add(SMLP_WITH_ONEDNN, "oneDNN and OpenBLAS");
  add(SMLP_WITH_PROMETHEUS, "prometheus-cpp");
  return names;
}

void need_checkpoints(const std::string& what) {
  if (built_with_hdf5()) return;
  throw Error(ExitCode::unavailable, fmt::format("{} checkpoints, and this smlp was built without HDF5, with which they are "
                                                 "written; build it with SMLP_HDF5=ON", what));
}

void need_ranks(std::int64_t ranks) {
  if (ranks <= 1 || built_with_mpi()) return;
  throw Error(ExitCode::unavailable, fmt::format("{} ranks need MPI, and this smlp was built without it; build it with "
                                                 "SMLP_MPI=ON, or ask for one rank (cluster.ranks = 1)", ranks));
}

}  // namespace smlp
