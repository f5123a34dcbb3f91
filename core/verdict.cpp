#include "core/verdict.h"

#include <nlohmann/json.hpp>

#include "core/files.h"
#include "core/json_lines.h"
#include "core/json_text.h"

namespace smlp {

namespace {

constexpr std::int64_t largest_file = 1 << 20;

bool yes(const nlohmann::json& object, const char* key) {
  return object.contains(key) && object[key].is_boolean() && object[key].get<bool>();
}

}  // namespace

void write_verdict(const std::filesystem::path& file, const Verdict& verdict) {
  const nlohmann::json json = {{"stop", verdict.stop},
                               {"budgeted", verdict.budgeted},
                               {"not_after", verdict.not_after},
                               {"reason", verdict.reason}};
  write_durably(file, json_text(json, 2) + "\n");
}

std::optional<Verdict> read_verdict(const std::filesystem::path& file) {
  const auto json = read_json_file(file, largest_file);
  const auto not_after = json.is_object() ? integer_in(json, "not_after") : std::nullopt;
  if (!not_after || *not_after < 0) return std::nullopt;
  return Verdict{yes(json, "stop"), yes(json, "budgeted"), *not_after, text_in(json, "reason")};
}

}  // namespace smlp
