// Kernels of routing: gates over slots, softmax gates (tensor/expert_choice.h), places, the balanced
// assignment.
#pragma once

#include "tensor/cuda/kernels.h"
#include "tensor/expert_choice.h"

namespace smlp::cuda {

// --- gates over slots (slots.cu)
// ---------------------------------------------------------------------------------- Slots [start[i], start[i
// + 1]) are those of expert first_expert + i.
struct SlotRange {
  static constexpr int most_experts = 128;
  int experts = 0, first_expert = 0;
  std::int64_t start[most_experts + 1];
};
struct SlotGate {
  Numbers scores;  // dscores in the backward pass
  std::int64_t tokens, stride;
  const std::int32_t* token;  // of each slot
  Numbers alpha;
  Numbers dalpha{};
};
void sigmoid_of_slots(cudaStream_t stream, const SlotRange& range, const SlotGate& g, int* fault);
void sigmoid_of_slots_backward(cudaStream_t stream, const SlotRange& range, const SlotGate& g, int* fault);

struct SoftmaxGate {
  const float* scores;  // [tokens, experts]
  std::int64_t tokens, experts;
  const std::int32_t* token;
  float* alpha = nullptr;
  const float* dalpha = nullptr;
  float* dscores = nullptr;
};
void softmax_of_slots(cudaStream_t stream, const SlotRange& range, const SoftmaxGate& g, int* fault);
void expert_of_slots(cudaStream_t stream, const SlotRange& range, std::int32_t* expert);
// expert: of each slot; sorted: the slots by token (order_by_index).
void softmax_of_slots_backward(cudaStream_t stream, const SoftmaxGate& g, const std::int32_t* expert,
                               const Sort& sorted);
void look_up(cudaStream_t stream, const std::int32_t* table, std::int64_t size, const std::int32_t* index,
             std::int64_t count, std::int32_t* out, int* fault);

// --- softmax gates (choice.cu) -----------------------------------------------------------------------------
// shares: of FirstChoice::sinkhorn, else null.
void choose_experts(cudaStream_t stream, const ChooseExperts& c, const double* shares);
// tensor/sinkhorn.h, group by group (sinkhorn.cu). shares [groups · tokens, experts]; factors: scratch of
// [groups, tokens + experts].
struct Shares {
  Numbers logits;
  std::int64_t stride, groups, tokens, experts;
  double* shares;
  double* factors;
  std::int32_t* rounds;  // [groups]; negative where the limit was met
};
void share_out(cudaStream_t stream, const Shares& s);
void balance_of_choices(cudaStream_t stream, const BalanceOfChoices& b);
void weigh_slots(cudaStream_t stream, const WeighSlots& w, int* fault);
void choices_backward(cudaStream_t stream, const ChoicesBackward& c, int* fault);

// --- who sits where (places.cu)
// ------------------------------------------------------------------------------------- Every token's best
// expert (the lower index wins, NaN counts least) as key, its number as value.
void best_experts(cudaStream_t stream, const Numbers& scores, std::int64_t tokens, std::int64_t experts,
                  std::int64_t stride, const Sort& s);
// start[k], k = 0 ... runs: the first place of a sorted key that is no smaller than k << shift.
void run_starts(cudaStream_t stream, const Sort& sorted, int shift, std::int64_t runs, std::int32_t* start);

struct PlaceScratch {
  std::int32_t* start;           // [groups · experts + 2]
  std::int32_t* first_slot;      // [groups · experts]
  std::int64_t* rows_of_expert;  // [experts]
};
// What place_tokens does, but for the counts that the host reads, which are left in scratch. `weights` (wide
// keys) is used for orders by weight, `cells` (narrow keys) for all.
void place_tokens(cudaStream_t stream, const PlaceTokens& p, const Sort& weights, const Sort& cells,
                  const PlaceScratch& scratch, int* fault);

// --- the balanced assignment (auction.cu): tensor/balanced_assignment.h, all groups at once ----------------
struct Auction {
  static constexpr int range_parts = 32;
  Numbers scores;  // [groups · tokens, experts]
  std::int64_t stride, groups, tokens, experts, capacity;
  double* score;            // [groups, experts, tokens]
  double* amount;           // [groups, experts, tokens]: what each expert bids; negative: not in its list
  double* cost;             // [groups, tokens]
  std::int32_t* holder;     // [groups, tokens]
  std::int32_t* owner;      // [groups, tokens]
  std::int32_t* room;       // [groups, experts]
  double* range;            // [groups, 2]: epsilon, greatest score
  double* extremes;         // [groups, range_parts, 2]: the least and the greatest score of a part
  std::int32_t* unsettled;  // [groups, limit]
  int limit;
};
void begin_auction(cudaStream_t stream, const Auction& a);
void auction_round(cudaStream_t stream, const Auction& a, int round);
// finished[0] = groups that are settled after `rounds` rounds.
void count_settled(cudaStream_t stream, const Auction& a, int rounds, std::int32_t* finished);
void end_auction(cudaStream_t stream, const Auction& a, std::int32_t* token_of_slot, std::int32_t* rounds);

}  // namespace smlp::cuda
