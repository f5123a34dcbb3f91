// Experts of several layers: each is a chain of residual blocks, h <- h + block(h), and answers with what the chain added to
// its rows (BASE's sublayers).
#pragma once

#include <memory>
#include <vector>

#include "layers/experts.h"

namespace smlp {

class ExpertStack final : public Experts {
 public:
  // At least one, none of which needs places.
  explicit ExpertStack(std::vector<std::unique_ptr<Experts>> layers) : layers_(std::move(layers)) {}

  void forward(Context& c, ExpertRows rows, std::span<const std::int32_t> places, TensorView x,
               TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  std::vector<std::unique_ptr<Experts>> layers_;
};

}  // namespace smlp
