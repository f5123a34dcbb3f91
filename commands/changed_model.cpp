#include "commands/changed_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <optional>

#include "checkpoint/checkpoint.h"
#include "commands/planned_job.h"
#include "core/error.h"
#include "core/json_lines.h"
#include "core/tell.h"

namespace smlp {

namespace {

using TensorTexts = std::map<std::string, std::string>;  // name -> "f32 [320, 8]"

TensorTexts weights_in(const std::filesystem::path& checkpoint) {
  TensorTexts found;
  for (const auto& [name, shape, dtype] : list_tensors(checkpoint)) {
    if (is_weight(name)) found[name] = fmt::format("{} {}", name_of(dtype), shape.text());
  }
  return found;
}

std::optional<TensorTexts> weights_of(const JobConfig& job) {
  const auto answer = ask_for_plan(job, "--tensors");
  const auto listed = parse_json(answer.out);
  if (answer.code != 0 || !listed.is_object()) {
    tell("whether the run's checkpoints fit the changed job was not looked at: {}", why_no_plan(answer));
    return std::nullopt;
  }
  TensorTexts found;
  for (const auto& [name, text] : listed.items()) found[name] = text.is_string() ? text.get<std::string>() : "";
  return found;
}

// Of the first tensor that is not the same; "" where all are.
std::string first_difference(const TensorTexts& there, const TensorTexts& wanted) {
  for (const auto& [name, text] : wanted) {
    const auto held = there.find(name);
    if (held == there.end()) return fmt::format("it holds no tensor {}, which the changed model in this run has", name);
    if (held->second != text) return fmt::format("tensor {} is {} there, {} in this run", name, held->second, text);
  }
  for (const auto& [name, text] : there) {
    if (!wanted.contains(name)) return fmt::format("it holds tensor {}, which the changed model does not have", name);
  }
  return "";
}

}  // namespace

void expect_same_tensors(const JobOfRun& before, const LoadedJob& job, const std::vector<std::string>& changed) {
  if (before.checkpoint.empty() || changed.empty()) return;  // none can be read as it is
  const auto wanted = weights_of(job.config);
  if (!wanted) return;
  const auto difference = first_difference(weights_in(before.checkpoint), *wanted);
  if (difference.empty()) return;
  std::vector<std::string> changes;
  for (const auto& key : changed) {
    changes.push_back(fmt::format("{}: {} = {}, where the run has {}", origin_of(job, key), key, value_of(job.config, key),
                                  value_of(before.config, key)));
  }
  throw Error(ExitCode::configuration,
              fmt::format("no checkpoint of the run could be read after this change, accepted or not ({}): {}: {}; keep what the "
                          "run has, or take another --run-dir",
                          fmt::join(changes, "; "), before.checkpoint.string(), difference));
}

}  // namespace smlp
