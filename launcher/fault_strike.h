// The faults of a drill that come from outside: signals to processes of a run on this host, damage to a file. Each finds
// its target by the run's files; the strike counts from the moment of the signal.
#pragma once

#include <optional>

#include "core/drill_plan.h"
#include "launcher/run_follower.h"

namespace smlp {

// nullopt: its target is not there now. Throws Error(unavailable) when it is on another host, Error(usage) for a fault
// that only the rank itself can do.
std::optional<Strike> strike(FaultKind kind, int rank, const RunFollower& run);

}  // namespace smlp
