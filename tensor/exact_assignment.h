// The best balanced assignment there is, to measure the auction against: successive shortest paths over the experts, a
// minimum-cost flow (Ahuja, Magnanti and Orlin, "Network Flows", 1993, chapter 9). Exact, and too slow to train with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace smlp {

// scores [tokens, experts], row by row, finite; room [experts]: places, together at least as many as tokens. Returns
// each token's expert, so that the total score is the greatest possible.
std::vector<std::int32_t> assign_exactly(std::span<const double> scores, std::int64_t tokens,
                                         std::span<const std::int64_t> room);

}  // namespace smlp
