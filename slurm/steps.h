// The steps of a job: what srun starts. For the launcher, which ends what an attempt left on other nodes, and numbers
// its launches so that no incarnation of a requeued job repeats a step id (a step daemon that was cut off ends the step
// of its own number when it comes back, whoever's that is by then).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smlp {

// Ids as scancel takes them, "12.3": those that srun started, not the batch script's, nor steps of the name `except`.
// nullopt: SLURM does not answer.
std::optional<std::vector<std::string>> steps_of_job(const std::string& job_id, const std::string& except, double seconds);

// SIGKILL to every process of these steps; asks, does not wait for their end.
void kill_steps(const std::vector<std::string>& steps, double seconds);

// The number of a step that does nothing, run on this node. nullopt: none could be started in time.
std::optional<std::int64_t> take_step_number(double seconds);

}  // namespace smlp
