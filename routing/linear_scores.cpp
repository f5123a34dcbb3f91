#include "routing/linear_scores.h"

namespace smlp {

TensorView converted(RouteCall& call, const TensorView& view, DType type) {
  if (view.dtype == type) return view;
  const TensorView other = call.scratch.take(view.shape, type);
  call.backend.copy(view, other);
  return other;
}

void LinearScores::forward(RouteCall& call, TensorView x, TensorView scores) {
  x_ = x;
  call.backend.matmul({.a = x, .b = weight_.value, .out = scores, .transpose_b = true});
}

void LinearScores::backward(RouteCall& call, TensorView dscores, TensorView residual, TensorView dx) {
  const TensorView narrow = converted(call, dscores, dx.dtype);
  call.backend.matmul({.a = narrow, .b = x_, .out = weight_.grad, .transpose_a = true, .accumulate = true});
  call.backend.matmul({.a = narrow, .b = weight_.value, .out = dx, .residual = residual});
}

}  // namespace smlp
