// targets.json, in which rank 0 says where Prometheus finds the metrics of the ranks (worker/run_log.h).
#pragma once

#include <string>

#include "core/run_directory.h"

namespace smlp {

std::string first_target(const RunDirectory& run);  // "n1:9100"; "" where there is none
// When they are gone: whatever gets their ports next would be stored under this run's name. A disk without room is no reason
// to throw: the list stays then.
void forget_targets(const RunDirectory& run) noexcept;

}  // namespace smlp
