#include "launcher/targets.h"

#include <nlohmann/json.hpp>

#include "core/files.h"
#include "core/json_lines.h"
#include "core/tell.h"

namespace smlp {

namespace {

constexpr std::int64_t largest_file = 16 << 20;

}  // namespace

std::string first_target(const RunDirectory& run) {
  const auto groups = read_json_file(run.targets(), largest_file);
  if (!groups.is_array()) return "";
  for (const auto& group : groups) {
    if (!group.is_object() || !group.contains("targets") || !group["targets"].is_array()) continue;
    for (const auto& target : group["targets"]) {
      if (target.is_string()) return target.get<std::string>();
    }
  }
  return "";
}

void forget_targets(const RunDirectory& run) noexcept {
  try {
    if (!first_target(run).empty()) write_atomically(run.targets(), "[]\n");
  } catch (const std::exception& error) {
    tell("{}; Prometheus still looks for the ranks of this run", error.what());
  }
}

}  // namespace smlp
