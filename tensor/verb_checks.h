// What the larger verbs ask of their arguments on every device, and the sizes that follow. A backend first checks
// the types that it computes in; values that lie in its memory, indices for one, it checks itself.
#pragma once

#include <initializer_list>
#include <span>

#include "tensor/backend.h"
#include "tensor/checks.h"

namespace smlp {

struct SpatialSizes {
  std::int64_t groups, sequences, length, channels;  // channels: of one group
};
SpatialSizes spatial_sizes(const char* verb, const SpatialProduct& p);

// `others`: what has the shape of u too.
void check_gate(const char* verb, const Gating& g, std::initializer_list<TensorView> others);
void check_norm(const char* verb, const Normalisation& n);
std::int64_t norm_lines(const Normalisation& n);  // of weight and bias
// Run `line` of as many equal runs of rows.
TensorView run_of_rows(const TensorView& x, std::int64_t line, std::int64_t lines);
Normalisation norm_of_line(const Normalisation& n, std::int64_t line, std::int64_t lines);
void check_norm_backward(const Normalisation& n, const TensorView& dy, const TensorView& residual, const TensorView& dx,
                         const TensorView& dweight, const TensorView& dbias);

struct AttentionSizes {
  std::int64_t sequences, length, heads, width;  // width: of one head
  double scale() const;                          // 1 / √width
};
AttentionSizes attention_sizes(const char* verb, const Attention& a);

void check_matmul(const Matmul& m);
// One expert's part of a grouped product: `rows` rows from row `first`.
Matmul expert_product(const Matmul& m, std::int64_t expert, std::int64_t first, std::int64_t rows);
void check_matmul_grouped(const Matmul& m, std::span<const std::int64_t> rows);
void check_row_blocks(const Matrix& from, const Matrix& to, std::span<const RowBlock> blocks);  // of copy_rows
void check_cross_entropy(const TensorView& logits, const TensorView& targets, const TensorView& row_loss,
                         const TensorView& scale, bool gradient);

void check_scores(const char* verb, const TensorView& scores);  // [tokens, experts]
struct BalancedSizes {
  std::int64_t tokens, experts, capacity;  // of a group
};
BalancedSizes balanced_sizes(const TensorView& scores, std::int64_t groups, const TensorView& token_of_slot,
                             const TensorView& rounds);
void check_assign_greedy(const TensorView& scores, const TensorView& token_of_slot,
                         std::span<const std::int64_t> rows_of_expert);
// One row of token_of_slot and of alpha a slot of `rows_of_expert`.
void check_slots(const char* verb, const TensorView& scores, const TensorView& alpha, const TensorView& token_of_slot,
                 std::span<const std::int64_t> rows_of_expert);
void check_look_up(const TensorView& table, const TensorView& index, const TensorView& out);

void check(const ChooseExperts& c);
void check(const BalanceOfChoices& b);
void check(const PlaceTokens& p);
void check(const WeighSlots& w);
void check(const ChoicesBackward& c);

}  // namespace smlp
