// Are the copies of a tensor still copies? What several ranks hold alike (replicated parameters over the world, an
// expert's slice over its replicas, their moments and masters) goes through the same updates everywhere and must stay
// bit-identical; a flipped bit in one rank's memory, or a device that computes wrongly, shows as a difference. Of what a
// rank holds alone there is nothing to compare.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "checkpoint/checkpoint.h"
#include "comm/communicator.h"

namespace smlp {

// Collective; the same answer on every rank: empty when all is alike, else a sentence that names tensors and ranks. The
// majority is right; where there is none, all holders are named. One or two small all-reduces, and a digest over what
// this rank holds, with a call of `between` behind each tensor.
std::string compare_replicas(Backend& backend, ProcessGrid& grid, std::span<const Piece> pieces,
                             const std::function<void()>& between = [] {});

}  // namespace smlp
