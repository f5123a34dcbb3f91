// The counts of a job's model, and how they are told: by `plan`, and by a run when it starts.
#pragma once

#include <nlohmann/json.hpp>

#include "core/job_config.h"
#include "layers/plan.h"

namespace smlp {

PlanCounts count_job(const JobConfig& job);    // on the job's ranks
PlanCounts count_alone(const JobConfig& job);  // on one rank: parameters and multiply-adds are those of any layout
nlohmann::json to_json(const PlanCounts& counts);
nlohmann::json tensors_json(const JobConfig& job);  // {"embed.weight": "f32 [320, 8]"}: all but the optimiser's state

}  // namespace smlp
