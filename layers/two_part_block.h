// A block that mixes the tokens (attention, or sMoE) and then works on each token (a feed-forward layer, or experts).
#pragma once

#include <memory>

#include "layers/layer.h"

namespace smlp {

class TwoPartBlock final : public Layer {
 public:
  TwoPartBlock(std::unique_ptr<Layer> mixing, std::unique_ptr<Layer> tokens)
      : mixing_(std::move(mixing)), tokens_(std::move(tokens)) {}

  void forward(Context& c, TensorView x, TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  std::unique_ptr<Layer> mixing_, tokens_;
};

}  // namespace smlp
