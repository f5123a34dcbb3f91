// A short step on each of the given nodes, many at once, each for itself: one that is gone holds up few others.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/run_directory.h"
#include "launcher/preflight.h"

namespace smlp {

// In the order of `nodes`; each within `seconds`. `environment`: of srun (step_environment).
std::vector<ProbeAnswer> probe_nodes(const std::vector<std::string>& nodes, const std::filesystem::path& worker,
                                     const RunDirectory& run, const std::vector<std::string>& environment, double seconds);

// The last line that is not empty, without its end; mpirun and srun may say something before it.
std::string closing_line(const std::string& text);

}  // namespace smlp
