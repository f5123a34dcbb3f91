// What a run made of the faults of a drill, judged by the records that it left and by the losses of an undisturbed run of
// the same job. Fills in, for each fault, how the run tells of it and how much it may have cost.
#pragma once

#include <string>
#include <vector>

#include "core/drill_plan.h"
#include "launcher/drill.h"

namespace smlp {

// Sentences about everything that is not as it must be; empty: all is well.
// What the last strike did is the drill's own, too, where the run ended before it had come back from it.
//   the run is done; every fault struck, and is told of in the records as what it was; no attempt ended without one
//   no restart lost more than the steps between two saves and those done while the save under way was written; after NaN and
//   a damaged checkpoint, when the newest checkpoint is given up, the steps to the one before it too
//   each attempt's first step follows the checkpoint it says it went on from, and every step's loss is the undisturbed
//   run's to the last bit, but for those of an attempt whose numbers are the fault
//   no sound checkpoint was rejected, no process and no half-written checkpoint is left
std::vector<std::string> judge(DrillRun& drill, const DrillSettings& settings, const RunDirectory& undisturbed,
                               const DrillShape& shape);

}  // namespace smlp
