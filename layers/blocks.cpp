#include "layers/blocks.h"

#include <fmt/format.h>

#include "core/error.h"
#include "layers/attention.h"
#include "layers/channel_moe.h"
#include "layers/feedforward.h"
#include "layers/feedforward_experts.h"
#include "layers/gmlp_block.h"
#include "layers/routed_channel_moe.h"
#include "layers/token_moe.h"
#include "layers/two_part_block.h"
#include "routing/balanced_router.h"

namespace smlp {

namespace {

std::unique_ptr<Router> make_router(const ModelConfig& config, ParameterStore& store,
                                    const std::string& name) {
  if (config.tokens == "balanced") {
    return std::make_unique<BalancedRouter>(store, name + ".centroids", config.experts, config.width);
  }
  throw Error(ExitCode::configuration,
              fmt::format("routing.tokens = \"{}\" is no way of routing tokens that this build knows "
                          "(balanced)",
                          config.tokens));
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

std::unique_ptr<Layer> make_token_moe(const ModelConfig& config, ParameterStore& store,
                                      ExpertExchange& exchange, const std::string& name, std::int64_t index) {
  TokenMoeParts parts;
  parts.router = make_router(config, store, name);
  parts.experts = std::make_unique<FeedforwardExperts>(store, name + ".experts", config.width, config.hidden,
                                                       config.activation, true, exchange);
  return std::make_unique<TokenMoe>(name, index, config.group_sequences, config.dropout, std::move(parts),
                                    exchange);
}

}  // namespace

std::unique_ptr<Layer> make_block(const ModelConfig& config, ParameterStore& store, ExpertExchange& exchange,
                                  const std::string& kind, std::int64_t index) {
  const std::string name = fmt::format("blocks.{}", index);
  if (kind == "gmlp") {
    return std::make_unique<GmlpBlock>(store, name,
                                       GmlpSizes{config.width, config.hidden, config.context, config.heads},
                                       config.activation, config.dropout);
  }
  if (kind == "smlp") {
    auto channels = make_channel_moe(config, store, exchange, name + ".smoe");
    auto tokens = make_token_moe(config, store, exchange, name + ".tmoe", index);
    return std::make_unique<TwoPartBlock>(std::move(channels), std::move(tokens));
  }
  expect(has_attention(kind), fmt::format("there is no block of kind \"{}\"", kind));
  auto attention = std::make_unique<SelfAttention>(store, name + ".attention", config.width, config.heads,
                                                   config.dropout);
  auto tokens = std::make_unique<FeedForward>(store, name + ".ffn", config.width, config.hidden,
                                              config.activation, config.dropout);
  return std::make_unique<TwoPartBlock>(std::move(attention), std::move(tokens));
}

}  // namespace smlp
