// What `submit` looks at before it lets a job wait in a queue for nothing. Each check ends with a sentence that names
// key, value and remedy; what can't be found out here is a note, not a refusal.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/job_file.h"
#include "core/run_directory.h"
#include "slurm/controller.h"
#include "slurm/measured_costs.h"

namespace smlp {

// slurm.nodes and cluster.ranks, each from the other. `ranks`: of the command line, 0: none.
void size_for_slurm(LoadedJob& job, std::int64_t ranks);

// The time limit leaves time to compute before its warning, and for three checkpoints where their interval is known.
void check_time_limit(const LoadedJob& job, const MeasuredCosts& costs, std::int64_t warning_seconds);
// What smlp-worker counts of the job (`smlp plan --json`); null, and a note, where it does not say.
nlohmann::json counts_of(const LoadedJob& job, std::vector<std::string>& notes);
// Room for the checkpoints that will be kept.
void check_disk(const LoadedJob& job, const RunDirectory& run, const nlohmann::json& counts, std::vector<std::string>& notes);
// slurm.memory holds what is counted of a node's ranks. A note where it does not: not every SLURM holds jobs to it.
void check_memory(const LoadedJob& job, const nlohmann::json& counts, std::vector<std::string>& notes);
void check_partition(const LoadedJob& job, const Controller& controller, std::vector<std::string>& notes);
// The folder is there, or can be made, and written to. Makes nothing.
void check_writable(const RunDirectory& run);
// No earlier batch job of this directory waits or runs, unless the new one depends on others. True where one may wait all
// the same, since it is to be waited for or SLURM does not say.
bool check_earlier_submissions(const LoadedJob& job, const RunDirectory& run, const Controller& controller);

}  // namespace smlp
