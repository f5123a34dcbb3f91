#include "layers/two_part_block.h"

#include <optional>

namespace smlp {

void TwoPartBlock::forward(Context& c, TensorView x, TensorView y) {
  const TensorView between = c.scratch.take({x.rows(), x.width()}, x.dtype);
  {
    std::optional<Arena::Frame> frame;
    if (!c.training()) frame.emplace(c.scratch);
    mixing_->forward(c, x, between);
  }
  tokens_->forward(c, between, y);
}

void TwoPartBlock::backward(Context& c, TensorView dy, TensorView dx) {
  const Arena::Frame frame(c.scratch);
  const TensorView between = c.scratch.take({dy.rows(), dy.width()}, dy.dtype);
  tokens_->backward(c, dy, between);
  mixing_->backward(c, between, dx);
}

}  // namespace smlp
