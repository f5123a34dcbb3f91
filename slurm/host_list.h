// Host lists as SLURM writes them, "n[1-3,07-09],gpu5", to single names and back. No SLURM program is asked.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlp {

// The names in the order of the list, numbers with their leading zeros; several brackets in a name are multiplied
// out. nullopt where it is no host list (an open bracket, a falling range, a blank), or names more than a million.
std::optional<std::vector<std::string>> expand_hosts(std::string_view list);

// The shortest list that expand_hosts() turns into the same names in the same order: neighbours whose last number
// alone differs share a bracket.
std::string compress_hosts(const std::vector<std::string>& names);

}  // namespace smlp
