// One live run a directory: an exclusive lock that dies with its holder.
#pragma once

#include "core/files.h"
#include "core/run_directory.h"

namespace smlp {

// How long what an earlier start left behind is waited for.
struct Patience {
  double holder_seconds = 0;
  double workers_seconds = 10;
  bool pass_by_workers = false;  // go on beside them then: on a node that was cut off they may compute on, but the
                                 // fence (checkpoints/ATTEMPT) lets them publish nothing
};
// More in a SLURM job that was requeued: what is still there of its earlier incarnation is about to end.
Patience patience_here();

// Throws Error(call_again) naming host and process of the holder. Where the holder has just died, waits for its
// workers to be gone. Keep what is returned until the run has ended.
FileLock take_run(const RunDirectory& run, const Patience& patience = {});

}  // namespace smlp
