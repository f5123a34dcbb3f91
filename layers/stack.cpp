// Which blocks a model is made of, and in what order.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
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

struct Kind {
  const char *name, *dense, *sparse;  // kinds of its blocks; no sparse ones: ""
};

constexpr Kind kinds[] = {{"gmlp", "gmlp", ""}, {"smlp", "gmlp", "smlp"}, {"transformer", "transformer", ""}};

constexpr const char* block_kinds[] = {"gmlp", "smlp", "transformer"};

}  // namespace

std::vector<std::string> stack_of(const ModelConfig& config) {
  std::vector<std::string> stack = config.stack;
  if (stack.empty()) {
    const auto* kind = std::find_if(std::begin(kinds), std::end(kinds),
                                    [&](const Kind& k) { return config.kind == k.name; });
    if (kind == std::end(kinds)) {
      throw Error(ExitCode::configuration, fmt::format("model.kind = \"{}\" is no kind of model", config.kind));
    }
    const std::int64_t sparse = *kind->sparse == '\0' ? 0 : config.sparse_blocks;
    for (const bool place : sparse_places(config.dense_blocks, sparse, config.placement)) {
      stack.push_back(place ? kind->sparse : kind->dense);
    }
  }
  for (const auto& kind : stack) {
    if (std::find(std::begin(block_kinds), std::end(block_kinds), kind) == std::end(block_kinds)) {
      throw Error(ExitCode::configuration, fmt::format("there are no blocks of kind \"{}\"", kind));
    }
  }
  return stack;
}

bool has_attention(const std::string& block) { return block != "gmlp" && block != "smlp"; }

bool has_experts(const std::string& block) { return block != "gmlp" && block != "transformer"; }

bool has_attention(const ModelConfig& config) {
  const auto stack = stack_of(config);
  return std::any_of(stack.begin(), stack.end(), [](const auto& kind) { return has_attention(kind); });
}

bool has_experts(const ModelConfig& config) {
  const auto stack = stack_of(config);
  return std::any_of(stack.begin(), stack.end(), [](const auto& kind) { return has_experts(kind); });
}

}  // namespace smlp
