// The sparse block of sMLP: sMoE over the channels, then tMoE over the tokens.
#pragma once

#include <memory>

#include "layers/channel_moe.h"
#include "layers/token_moe.h"

namespace smlp {

class SmlpBlock final : public Layer {
 public:
  SmlpBlock(std::unique_ptr<ChannelMoe> channels, std::unique_ptr<TokenMoe> tokens)
      : channels_(std::move(channels)), tokens_(std::move(tokens)) {}

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  std::unique_ptr<ChannelMoe> channels_;
  std::unique_ptr<TokenMoe> tokens_;
};

}  // namespace smlp
