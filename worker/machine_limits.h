// What this machine can do at best and what a token needs at least: the two sides of "share of peak".
#pragma once

#include <cstdint>

#include "layers/plan.h"
#include "tensor/backend.h"

namespace smlp {

// Floating-point operations a second of the best of several 1024³ products of this type.
double product_rate(Backend& backend, DType type);
// 6 × the multiply-adds of one token, forward, the causal half of W_s counted once (the useful work of training).
double useful_flops_per_token(const PlanCounts& counts, std::int64_t context);

}  // namespace smlp
