#include "layers/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "layers/language_model.h"

namespace smlp {

namespace {

void check_sizes(const ModelConfig& config) {
  const auto require = [](bool holds, const std::string& sentence) {
    if (!holds) throw Error(ExitCode::configuration, sentence);
  };
  require(config.context > 0 && config.width > 0 && config.vocabulary > 0,
          "model: context, width and vocabulary must be at least 1");
  require(config.hidden > 0 && config.hidden % 2 == 0,
          fmt::format("model.hidden = {} must be even: the gate halves it", config.hidden));
  require(
      config.heads > 0 && config.hidden / 2 % config.heads == 0,
      fmt::format("model.heads = {} must divide half of model.hidden, {}", config.heads, config.hidden / 2));
  require(config.dropout >= 0 && config.dropout < 1,
          fmt::format("model.dropout = {} must be at least 0 and less than 1", config.dropout));
  if (!has_experts(config)) return;
  require(config.experts > 0 && config.width % config.experts == 0,
          fmt::format("model.experts = {} must divide model.width = {}", config.experts, config.width));
  require(config.channels == "deterministic",
          fmt::format("routing.channels = \"{}\" is not built yet (deterministic)", config.channels));
  require(config.group_sequences > 0,
          fmt::format("routing.group_sequences = {} must be at least 1", config.group_sequences));
}

}  // namespace

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

std::vector<std::string> stack_of(const ModelConfig& config) {
  std::vector<std::string> stack = config.stack;
  if (stack.empty() && config.kind == "gmlp") {
    stack.assign(static_cast<std::size_t>(config.dense_blocks), "gmlp");
  } else if (stack.empty() && config.kind == "smlp") {
    for (const bool sparse : sparse_places(config.dense_blocks, config.sparse_blocks, config.placement)) {
      stack.push_back(sparse ? "smlp" : "gmlp");
    }
  } else if (stack.empty()) {
    throw Error(ExitCode::configuration,
                fmt::format("model.kind = \"{}\" is not built yet (gmlp, smlp)", config.kind));
  }
  for (const auto& kind : stack) {
    if (kind != "gmlp" && kind != "smlp") {
      throw Error(ExitCode::configuration, fmt::format("blocks of kind \"{}\" are not built yet", kind));
    }
  }
  return stack;
}

bool has_experts(const ModelConfig& config) {
  const auto stack = stack_of(config);
  return std::any_of(stack.begin(), stack.end(), [](const auto& kind) { return kind == "smlp"; });
}

std::unique_ptr<Model> make_model(const ModelConfig& config, ParameterStore& store, ExpertGroup experts) {
  check_sizes(config);
  return std::make_unique<LanguageModel>(config, store, experts);
}

}  // namespace smlp
