// One token-mixing operation by itself, counted from the real layers: what the paper's table 3 compares. Norms in front of
// the operation are left out; those inside it count 5 operations an element, as published counts do.
#pragma once

#include <cstdint>

namespace smlp {

struct MixingCounts {
  std::int64_t parameters = 0;     // of the operation; of one expert where it has experts
  std::int64_t multiply_adds = 0;  // forward, over two sequences, the full square
};

MixingCounts count_self_attention(std::int64_t context, std::int64_t width, std::int64_t heads);
// The gate over tokens of a gMLP block whose hidden width is `hidden`.
MixingCounts count_spatial_gate(std::int64_t context, std::int64_t hidden, std::int64_t heads);
// sMoE with deterministic routing.
MixingCounts count_channel_moe(std::int64_t context, std::int64_t width, std::int64_t experts);

}  // namespace smlp
