#include "layers/expert_stack.h"

namespace smlp {

void ExpertStack::forward(Context& c, ExpertRows rows, std::span<const std::int32_t> places, TensorView x,
                          TensorView y) {
  layers_.front()->forward(c, rows, places, x, y);
  TensorView h = x, added = y;
  for (std::size_t i = 1; i < layers_.size(); ++i) {
    const TensorView next = c.scratch.take(x.shape, x.dtype), answer = c.scratch.take(x.shape, x.dtype);
    if (x.rows() > 0) c.backend.add(h, added, next);
    layers_[i]->forward(c, rows, places, next, answer);
    if (x.rows() > 0) c.backend.add(y, answer, y);
    h = next;
    added = answer;
  }
}

void ExpertStack::backward(Context& c, TensorView dy, TensorView dx) {
  if (layers_.size() == 1) return layers_.front()->backward(c, dy, dx);
  if (dy.rows() == 0) return;
  const Arena::Frame frame(c.scratch);
  // Of what enters the layer above, and of a layer's answer: y's and that together.
  const TensorView dh = c.scratch.take(dy.shape, dy.dtype), danswer = c.scratch.take(dy.shape, dy.dtype);
  layers_.back()->backward(c, dy, dh);
  for (std::size_t i = layers_.size() - 1; i-- > 0;) {
    c.backend.add(dy, dh, danswer);
    layers_[i]->backward(c, danswer, danswer);
    c.backend.add(dh, danswer, i == 0 ? dx : dh);
  }
}

}  // namespace smlp
