// Benchmarks that smlp-worker runs for `smlp bench`: each measures beside the machine's own limit, in the same run,
// on the resolved sizes of a job and on random data. Results are JSON; bench_command() prints them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "core/job_config.h"
#include "worker/machine_limits.h"

namespace smlp {

struct BenchOptions {
  JobConfig job;       // resolved: sizes, precision, threads
  double seconds = 5;  // about how long to measure each thing
  std::int64_t least_product = smlp::least_product, least_vector = smlp::least_vector;  // of the machine's limits
  std::int64_t most_bytes = std::int64_t{64} << 20;                                     // of a message
};

// Under mpirun with several ranks every rank calls these; only rank 0 fills `result`.
void bench_step(const BenchOptions& options, nlohmann::json& result);
void bench_scaling(const BenchOptions& options, nlohmann::json& result);
void bench_kernels(const BenchOptions& options, nlohmann::json& result);
void bench_comm(const BenchOptions& options, nlohmann::json& result);
void bench_routing(const BenchOptions& options, nlohmann::json& result);
void bench_checkpoint(const BenchOptions& options, nlohmann::json& result);

}  // namespace smlp
