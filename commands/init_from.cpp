#include "commands/init_from.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "checkpoint/saved_job.h"
#include "commands/with_checkpoint.h"
#include "core/error.h"
#include "core/tell.h"
#include "data/tokenizer.h"

namespace smlp {

namespace {

void check_tokenizer_of(const std::filesystem::path& source, const RunState& state, const std::string& name) {
  const auto trained_with = state.text("tokenizer");
  if (trained_with.empty() || open_tokenizer(name)->fingerprint() == trained_with) return;
  throw Error(ExitCode::configuration,
              fmt::format("the weights of {} were trained with another tokenizer than data.tokenizer = \"{}\": each row of their "
                          "embedding would stand for another token. Name that tokenizer, or --accept-change data.tokenizer if "
                          "that is meant",
                          source.string(), name));
}

// Of another version's job nothing is told: the tensors fit, or do not.
std::optional<JobConfig> understood_job(const RunState& state, const std::filesystem::path& source) {
  try {
    return saved_job(state, source).config;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void tell_differences(const std::filesystem::path& source, const RunState& state, const JobConfig& job) {
  const auto its = understood_job(state, source);
  if (!its) return;
  std::vector<std::string> differences;
  for (const auto& key : changed_keys(*its, job)) {
    if (!key.starts_with("model.") || key == "model.vocabulary") continue;  // resolved later; the tensors tell
    differences.push_back(fmt::format("{} = {}, here {}", key, value_of(*its, key), value_of(job, key)));
  }
  if (differences.empty()) return;
  tell("the weights of {} are of a model with {}", source.string(), fmt::join(differences, "; "));
}

}  // namespace

std::filesystem::path weights_to_begin_with(const std::string& given, const JobConfig& job,
                                            const std::vector<std::string>& accepted) {
  const auto source = std::filesystem::absolute(chosen_checkpoint(given));
  const auto state = read_run_state(source);
  if (std::ranges::find(accepted, "data.tokenizer") == accepted.end()) check_tokenizer_of(source, state, job.data.tokenizer);
  tell_differences(source, state, job);
  return source;
}

}  // namespace smlp
