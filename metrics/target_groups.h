// What targets.json says to Prometheus (file_sd): a group a rank, whose label `instance` is the rank and not its address, which
// is another one in each attempt. So each rank's series go on over restarts.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace smlp {

// `addresses`: of the ranks in their order; those that serve nothing have "". `labels`: of all of them.
nlohmann::json target_groups(const std::vector<std::string>& addresses, const std::map<std::string, std::string>& labels);

}  // namespace smlp
