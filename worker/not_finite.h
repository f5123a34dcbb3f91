// Whose numbers went wrong, where the sums over all ranks are not finite.
#pragma once

#include <string>

#include "comm/communicator.h"

namespace smlp {

// Of one rank in one step, before anything was summed over ranks.
struct OwnFinite {
  bool loss = true;
  bool gradient = true;  // true too where nobody looked: Engine::watch_gradients
};

// Collective; the same words on every rank: "with the loss of rank 1 (node7)". A loss is its rank's own, a gradient may
// have come through the experts of another: ranks whose loss is not finite go first.
std::string name_not_finite(Communicator& world, const OwnFinite& mine);

}  // namespace smlp
