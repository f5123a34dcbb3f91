// Which device a rank computes on.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/job_config.h"
#include "tensor/backend.h"

namespace smlp {

// The GPU of this rank, counted among those that its process sees; none: the CPU. `gpus`: how many it sees.
// Ranks of a host take turns where they see several, as they do where SLURM does not give each its own.
std::optional<int> gpu_of(const JobConfig& job, int gpus, std::int64_t local_rank);
std::optional<int> gpu_of(const JobConfig& job);  // of this process

std::string device_name(const std::optional<int>& gpu);  // "cpu", "cuda:1"

// Memory and arithmetic as the job asks for; throws Error(unavailable) for a device that this machine or
// build lacks.
std::unique_ptr<Backend> make_backend(const JobConfig& job);

}  // namespace smlp
