// [routing] of a resolved job as the routers take it, and the table of hash routing: made, read, and held against the
// one of a checkpoint.
#pragma once

#include "comm/communicator.h"
#include "core/job_config.h"
#include "routing/make_router.h"

namespace smlp {

RouterSettings router_settings(const JobConfig& job);  // without the hash table

// The expert of each token id by routing.hash_table; empty unless the job routes by hash. Collective: for a balanced
// table every rank counts its part of data.train. Throws Error(configuration) when a file is missing or no table.
std::vector<std::int32_t> make_hash_table(const JobConfig& job, Communicator& world);

// After a checkpoint was read into the tables of the store: throws Error(configuration) where one is not as the job
// makes it, for the experts have learned other tokens.
void check_tables(Backend& backend, const ParameterStore& store, const JobConfig& job, const std::string& checkpoint);

}  // namespace smlp
