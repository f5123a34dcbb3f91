// Products in plain loops, for builds without a library for them: right, the same for any number of threads, and many
// times slower (docs/decisions/0013). Compiled into every build, so that every build tests them.
#pragma once

#include "tensor/cpu/products.h"

namespace smlp::cpu {

// out = op(a) · op(b), or out += it; nothing else of `p`. All of f32, or all of f64.
void multiply_plainly(const Product& p, const Matrix& out);

}  // namespace smlp::cpu
