#include "layers/blocks.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "layers/attention.h"
#include "layers/channel_moe.h"
#include "layers/expert_stack.h"
#include "layers/feedforward.h"
#include "layers/feedforward_experts.h"
#include "layers/gmlp_block.h"
#include "layers/gmlp_experts.h"
#include "layers/routed_channel_moe.h"
#include "layers/token_moe.h"
#include "layers/two_part_block.h"

namespace smlp {

namespace {

GmlpSizes gmlp_sizes(const ModelConfig& config) {
  return {config.width, config.hidden, config.context, config.heads};
}

std::unique_ptr<Layer> make_channel_moe(const ModelConfig& config, ParameterStore& store,
                                        ExpertExchange& exchange, const std::string& name) {
  if (config.channels == "deterministic") {
    return std::make_unique<ChannelMoe>(store, name, config.width, config.context, config.experts,
                                        config.dropout, exchange);
  }
  return std::make_unique<RoutedChannelMoe>(store, name, config.width, config.context, config.experts,
                                            config.channels == "leaky", config.dropout, exchange);
}

std::unique_ptr<Experts> make_experts(const ModelConfig& config, ParameterStore& store, ExpertExchange& exchange,
                                     const std::string& name, bool own_norm) {
  const auto one = [&](const std::string& of) {
    return std::make_unique<FeedforwardExperts>(store, of, config.width, config.hidden, config.activation, own_norm,
                                                exchange);
  };
  if (config.expert_layers == 1) return one(name);
  std::vector<std::unique_ptr<Experts>> layers;
  for (std::int64_t i = 0; i < config.expert_layers; ++i) layers.push_back(one(fmt::format("{}.{}", name, i)));
  return std::make_unique<ExpertStack>(std::move(layers));
}

std::unique_ptr<Layer> make_token_moe(const ModelConfig& config, ParameterStore& store,
                                      ExpertExchange& exchange, const std::string& name,
                                      const std::string& kind, std::int64_t index) {
  const auto stack = stack_of(config);
  const auto layers = std::ranges::count_if(stack, [](const auto& block) { return has_experts(block); });
  const bool own_norm = kind != "gshard" && kind != "switch";
  TokenMoeParts parts;
  if (!own_norm) parts.norm.emplace(store, name + ".norm", config.width);
  parts.router = make_router(router_of(config, kind), store, name,
                             {config.experts, config.width, config.vocabulary, layers});
  if (kind == "gmlp-token-moe") {
    parts.experts = std::make_unique<GmlpExperts>(store, name + ".experts", gmlp_sizes(config),
                                                  config.activation, exchange);
  } else {
    parts.experts = make_experts(config, store, exchange, name + ".experts", own_norm);
  }
  parts.shuffle = config.shuffle && !parts.experts->need_places();
  return std::make_unique<TokenMoe>(name, index, config.group_sequences, config.dropout, std::move(parts),
                                    exchange);
}

std::unique_ptr<Layer> make_feedforward(const ModelConfig& config, ParameterStore& store,
                                        const std::string& name) {
  return std::make_unique<FeedForward>(store, name, config.width, config.hidden, config.activation,
                                       config.dropout);
}

}  // namespace

std::unique_ptr<Layer> make_block(const ModelConfig& config, ParameterStore& store, ExpertExchange& exchange,
                                  const std::string& kind, std::int64_t index) {
  const std::string name = fmt::format("blocks.{}", index);
  if (kind == "gmlp") {
    return std::make_unique<GmlpBlock>(store, name, gmlp_sizes(config), config.activation, config.dropout);
  }
  if (kind == "gmlp-token-moe") return make_token_moe(config, store, exchange, name + ".moe", kind, index);
  if (kind == "smlp") {
    auto channels = make_channel_moe(config, store, exchange, name + ".smoe");
    auto tokens = make_token_moe(config, store, exchange, name + ".tmoe", kind, index);
    return std::make_unique<TwoPartBlock>(std::move(channels), std::move(tokens));
  }
  expect(has_attention(kind), [&] { return fmt::format("there is no block of kind \"{}\"", kind); });
  auto attention = std::make_unique<SelfAttention>(store, name + ".attention", config.width, config.heads,
                                                   config.dropout);
  auto tokens = has_experts(kind) ? make_token_moe(config, store, exchange, name + ".moe", kind, index)
                                  : make_feedforward(config, store, name + ".ffn");
  return std::make_unique<TwoPartBlock>(std::move(attention), std::move(tokens));
}

}  // namespace smlp
