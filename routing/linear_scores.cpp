#include "routing/linear_scores.h"

namespace smlp {

void LinearScores::forward(RouteCall& call, TensorView x, TensorView scores) {
  x_ = x;
  call.backend.matmul({.a = x, .b = weight_.value, .out = scores, .transpose_b = true});
}

void LinearScores::backward(RouteCall& call, TensorView dscores, TensorView residual, TensorView dx) {
  TensorView narrow = dscores;
  if (dscores.dtype != dx.dtype) {
    narrow = call.scratch.take(dscores.shape, dx.dtype);
    call.backend.copy(dscores, narrow);
  }
  call.backend.matmul({.a = narrow, .b = x_, .out = weight_.grad, .transpose_a = true, .accumulate = true});
  call.backend.matmul({.a = narrow, .b = weight_.value, .out = dx, .residual = residual});
}

}  // namespace smlp
