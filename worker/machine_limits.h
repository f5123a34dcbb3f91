// What this machine can do at best and what a token needs at least: the two sides of "share of peak".
#pragma once

#include <cstdint>

#include "layers/plan.h"
#include "tensor/backend.h"

namespace smlp {

// Random numbers in [-1, 1), the same for each key: a GPU that multiplies equal numbers draws less power, and runs faster than
// it does in training. A processor's products take as long with any numbers, and a run begins sooner: ones.
void draw(Backend& backend, TensorView x, std::uint64_t key);  // x: contiguous

// Sizes at which a machine shows what it can do: the least, doubled until one call takes a millisecond, as on a GPU, which
// 1024³ does not fill, or until memory ends.
inline constexpr std::int64_t least_product = 1024, least_vector = std::int64_t{16} << 20;
// A start does not wait for more: a processor takes milliseconds for it, and shows nearly as much.
inline constexpr std::int64_t least_product_of_a_start = 512;
std::int64_t telling_product(Backend& backend, DType type, std::int64_t least = least_product);  // n of an n³ product
std::int64_t telling_vector(Backend& backend, DType type, std::int64_t least = least_vector);    // of an addition

// Floating-point operations a second of the best of several products of such a size and this type.
double product_rate(Backend& backend, DType type, std::int64_t least = least_product);
// 6 × the multiply-adds of one token, forward, the causal half of W_s counted once (the useful work of training).
double useful_flops_per_token(const PlanCounts& counts, std::int64_t context);

}  // namespace smlp
