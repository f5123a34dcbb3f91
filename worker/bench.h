// Benchmarks that smlp-worker runs for `smlp bench`: each measures beside the machine's own limit, in the same run,
// on the resolved sizes of a job and on random data. Results are JSON; main() prints them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "core/job_config.h"

namespace smlp {

struct BenchOptions {
  JobConfig job;       // resolved: sizes, precision, threads
  double seconds = 5;  // about how long to measure each thing
  // Where the search for the machine's limits begins (worker/machine_limits.h), and the largest message.
  std::int64_t least_product = 1024, least_vector = std::int64_t{16} << 20, most_bytes = std::int64_t{64} << 20;
};

// Under mpirun with several ranks every rank calls these; only rank 0 fills `result`.
void bench_step(const BenchOptions& options, nlohmann::json& result);
void bench_scaling(const BenchOptions& options, nlohmann::json& result);
void bench_kernels(const BenchOptions& options, nlohmann::json& result);
void bench_comm(const BenchOptions& options, nlohmann::json& result);
void bench_routing(const BenchOptions& options, nlohmann::json& result);
void bench_checkpoint(const BenchOptions& options, nlohmann::json& result);

}  // namespace smlp
