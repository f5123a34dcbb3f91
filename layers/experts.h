// The experts of one layer that live on this rank. Their rows are grouped by expert.
#pragma once

#include "layers/expert_parts.h"

namespace smlp {

class Experts {
 public:
  virtual ~Experts() = default;
  // Whether they look at where a row stands in its sequence.
  virtual bool need_places() const { return false; }
  // `places`, where they are needed: of every row, its place among the rows of all sequences of the expert group
  // (sequence · length + position); -1: the row is empty.
  virtual void forward(Context& c, ExpertRows rows, std::span<const std::int32_t> places, TensorView x,
                       TensorView y) = 0;
  virtual void backward(Context& c, TensorView dy, TensorView dx) = 0;  // dx may be dy
};

}  // namespace smlp
