// What a step and a checkpoint of a run have cost so far, from the files of its directory.
#pragma once

#include <cstdint>
#include <optional>

#include "core/run_directory.h"

namespace smlp {

struct MeasuredCosts {
  std::optional<double> step_seconds;  // median of the newest steps
  std::optional<double> save_seconds;  // the longest of the newest checkpoints, until it was published
};

// Nothing is known of a run that has not begun.
MeasuredCosts measured_costs(const RunDirectory& run);

// Seconds of warning before the time limit: `floor`, or more where three steps and saves with 30 s for SLURM's own
// delay take longer. Never more than sbatch takes (65535).
std::int64_t warning_seconds(std::int64_t floor, const MeasuredCosts& costs);

}  // namespace smlp
