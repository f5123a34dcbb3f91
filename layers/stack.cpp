// Which blocks a model is made of, and in what order.
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "core/error.h"
#include "core/model_check.h"
#include "layers/model.h"

namespace smlp {

std::vector<bool> sparse_places(std::int64_t dense, std::int64_t sparse, const std::string& rule) {
  std::vector<bool> places;
  if (rule == "fairseq") {  // inserted one by one into the list as it grows
    places.assign(static_cast<std::size_t>(dense), false);
    for (std::int64_t k = 1; k <= sparse; ++k) places.insert(places.begin() + k * dense / (sparse + 1), true);
    return places;
  }
  if (rule != "paper") {
    throw Error(ExitCode::configuration,
                fmt::format("model.placement = \"{}\" is no rule (paper, fairseq)", rule));
  }
  places.assign(static_cast<std::size_t>(dense + sparse), dense == 0);
  for (std::int64_t k = 1; k <= sparse && dense > 0; ++k) {
    places[static_cast<std::size_t>(k * (dense + sparse) / (sparse + 1) - 1)] = true;
  }
  return places;
}

namespace {

bool is_among(const std::string& word, std::initializer_list<const char*> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Every other one, beginning with a dense one.
std::vector<bool> alternating_places(std::int64_t dense, std::int64_t sparse) {
  if (sparse != dense && sparse != dense - 1) {
    throw Error(ExitCode::configuration,
                fmt::format("model.sparse_blocks = {} does not alternate with model.dense_blocks = {}: there must be as "
                            "many, or one fewer",
                            sparse, dense));
  }
  std::vector<bool> places;
  for (std::int64_t k = 0; k < dense + sparse; ++k) places.push_back(k % 2 == 1);
  return places;
}

}  // namespace

std::vector<std::string> stack_of(const ModelConfig& config) {
  std::vector<std::string> stack = config.stack;
  if (stack.empty()) {
    const auto* kind = find_model_kind(config.kind);
    if (kind == nullptr) {
      throw Error(ExitCode::configuration, fmt::format("model.kind = \"{}\" is no kind of model", config.kind));
    }
    const std::int64_t sparse = kind->has_experts() ? config.sparse_blocks : 0;
    for (const bool place : kind->alternating ? alternating_places(config.dense_blocks, sparse)
                                              : sparse_places(config.dense_blocks, sparse, config.placement)) {
      stack.push_back(place ? kind->sparse : kind->dense);
    }
  }
  for (const auto& kind : stack) {
    if (!has_attention(kind) && !has_spatial_gate(kind)) {
      throw Error(ExitCode::configuration, fmt::format("there are no blocks of kind \"{}\"", kind));
    }
  }
  return stack;
}

bool has_attention(const std::string& block) {
  return is_among(block, {"transformer", "gshard", "switch", "base", "hash"});
}

bool has_spatial_gate(const std::string& block) { return is_among(block, {"gmlp", "smlp", "gmlp-token-moe"}); }

bool has_experts(const std::string& block) { return !is_among(block, {"gmlp", "transformer"}); }

bool has_attention(const ModelConfig& config) {
  const auto stack = stack_of(config);
  return std::any_of(stack.begin(), stack.end(), [](const auto& kind) { return has_attention(kind); });
}

bool has_experts(const ModelConfig& config) {
  const auto stack = stack_of(config);
  return std::any_of(stack.begin(), stack.end(), [](const auto& kind) { return has_experts(kind); });
}

RouterSettings router_of(const ModelConfig& config, const std::string& block) {
  RouterSettings settings = config.router;
  if (block == "base") settings.tokens = "balanced";
  if (block == "gshard" || block == "switch" || block == "hash") settings.tokens = block;
  return settings;
}

bool has_auxiliary_loss(const ModelConfig& config) {
  const auto stack = stack_of(config);
  return std::any_of(stack.begin(), stack.end(), [&](const auto& kind) {
    return has_experts(kind) && has_auxiliary_loss(router_of(config, kind));
  });
}

bool drops_in_evaluation(const ModelConfig& config) {
  return has_auxiliary_loss(config) && config.router.softmax.evaluation.limited();  // no other routers have capacities
}

}  // namespace smlp
