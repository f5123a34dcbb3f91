// The steps of a job: what srun starts. For the launcher, which ends what an attempt left on other nodes, and nothing that
// others have started in the same job, and numbers its launches so that no incarnation of a requeued job repeats a step id
// (a step daemon that was cut off ends the step of its own number when it comes back, whoever's that is by then).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/run_directory.h"

namespace smlp {

// The name of every step of this run: "smlp-ranks-" and a number that no other run of the same job has.
std::string step_name_of(const RunDirectory& run);

// Ids as scancel takes them, "12.3" or "15_3.4", of the job's steps of this name. `job`: Allocation::controller_id.
// nullopt: SLURM does not answer.
std::optional<std::vector<std::string>> steps_named(const std::string& name, const std::string& job, double seconds);

// SIGKILL to every process of these steps; asks, does not wait for their end.
void kill_steps(const std::vector<std::string>& steps, double seconds);

// The number of a step of this name that does nothing, run on this node. nullopt: none could be started in time.
std::optional<std::int64_t> take_step_number(const std::string& name, double seconds);

}  // namespace smlp
