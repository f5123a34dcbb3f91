#include "metrics/target_groups.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace smlp {

nlohmann::json target_groups(const std::vector<std::string>& addresses, const std::map<std::string, std::string>& labels) {
  auto groups = nlohmann::json::array();
  for (std::size_t rank = 0; rank < addresses.size(); ++rank) {
    if (addresses[rank].empty()) continue;
    auto its_labels = labels;
    its_labels["instance"] = fmt::format("rank-{}", rank);
    groups.push_back({{"targets", {addresses[rank]}}, {"labels", its_labels}});
  }
  return groups;
}

}  // namespace smlp
