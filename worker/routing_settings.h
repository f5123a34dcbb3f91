// [routing] of a resolved job as the routers take it, and the table of hash routing made or read.
#pragma once

#include "comm/communicator.h"
#include "core/job_config.h"
#include "routing/make_router.h"

namespace smlp {

RouterSettings router_settings(const JobConfig& job);  // without the hash table

}  // namespace smlp
