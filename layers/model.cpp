#include "layers/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/model_check.h"
#include "layers/language_model.h"

namespace smlp {

namespace {

void require(bool holds, const std::string& sentence) {
  if (!holds) throw Error(ExitCode::configuration, sentence);
}

void check_sizes(const ModelConfig& config) {
  const auto stack = stack_of(config);
  const auto any = [&](auto holds) { return std::any_of(stack.begin(), stack.end(), holds); };
  const auto of_kind = [](const char* kind) {
    return [kind](const std::string& block) { return block == kind; };
  };
  require(config.context > 0 && config.width > 0 && config.vocabulary > 0,
          "model: context, width and vocabulary must be at least 1");
  require(config.hidden > 0, fmt::format("model.hidden = {} must be at least 1", config.hidden));
  require(config.heads > 0, fmt::format("model.heads = {} must be at least 1", config.heads));
  require(config.dropout >= 0 && config.dropout < 1,
          fmt::format("model.dropout = {} must be at least 0 and less than 1", config.dropout));
  if (any([](const std::string& block) { return has_spatial_gate(block); })) {
    require(config.hidden % 2 == 0,
            fmt::format("model.hidden = {} must be even: the gate halves it", config.hidden));
    require(config.hidden / 2 % config.heads == 0,
            fmt::format("model.heads = {} must divide half of model.hidden, {}", config.heads, config.hidden / 2));
  }
  if (any([](const std::string& block) { return has_attention(block); })) {
    require(config.width % config.heads == 0,
            fmt::format("model.heads = {} must divide model.width = {}: each head of the attention has an equal "
                        "share of the channels",
                        config.heads, config.width));
    require(config.width % 2 == 0,
            fmt::format("model.width = {} must be even: half of the channels get sines, half cosines", config.width));
  }
  if (!has_experts(config)) return;
  require(config.experts > 0, fmt::format("model.experts = {} must be at least 1", config.experts));
  require(config.group_sequences > 0,
          fmt::format("routing.group_sequences = {} must be at least 1", config.group_sequences));
  require(config.expert_layers > 0, fmt::format("model.expert_layers = {} must be at least 1", config.expert_layers));
  require(config.expert_layers == 1 || !(any(of_kind("switch")) || any(of_kind("gshard")) || any(of_kind("gmlp-token-moe"))),
          fmt::format("model.expert_layers = {} is for experts that are residual blocks: smlp, base, hash", config.expert_layers));
  if (!any(of_kind("smlp"))) return;
  require(config.width % config.experts == 0,
          fmt::format("model.experts = {} must divide model.width = {}", config.experts, config.width));
  require(config.channels == "deterministic" || config.channels == "partial" || config.channels == "leaky",
          fmt::format("routing.channels = \"{}\" is no way of routing channels (deterministic, partial, leaky)",
                      config.channels));
  require(config.channels != "leaky" || config.allow_leak,
          "routing.channels = \"leaky\" lets a token see later ones: it is for study, with routing.allow_leak = true");
  require(config.channels != "partial" || prefix_of(config.context) > 0,
          fmt::format("model.context = {} leaves partial prediction no prefix to route by: it takes the first fifth of a "
                      "sequence, so at least 5 tokens",
                      config.context));
}

}  // namespace

std::unique_ptr<Model> make_model(const ModelConfig& config, ParameterStore& store, ExpertGroup experts) {
  check_sizes(config);
  return std::make_unique<LanguageModel>(config, store, experts);
}

}  // namespace smlp
