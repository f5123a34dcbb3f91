// What the kinds of models are made of, as far as a job's values depend on it, and values of [model] and [routing] that
// do not fit each other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/job_config.h"

namespace smlp {

struct ModelKind {
  const char *name, *dense, *sparse;  // and the kinds of its blocks; no sparse ones: ""
  bool alternating;    // every other block is sparse, and the first is dense
  bool attention;      // blocks with heads of attention
  bool gates;          // blocks with spatial gates
  const char* tokens;  // the one way to route tokens; "": as routing.tokens says
  bool has_experts() const { return *sparse != '\0'; }
};

// Tokens of a sequence by which partial prediction routes its channels, and of which it predicts none: the first fifth.
constexpr std::int64_t prefix_of(std::int64_t context) { return context / 5; }

const ModelKind* find_model_kind(std::string_view name);  // null: there is none of that name
// Of model.kind, one of the words that its key allows.
const ModelKind& kind_of(const JobConfig::Model& model);

// Each a key and a sentence that goes on after "key = value".
std::vector<std::pair<std::string, std::string>> model_problems(const JobConfig& config);

}  // namespace smlp
