// One live run a directory: an exclusive lock that dies with its holder.
#pragma once

#include "core/files.h"
#include "core/run_directory.h"

namespace smlp {

// Throws Error(call_again) naming host and process of the holder. Where the holder has just died, waits for its
// workers to be gone, `seconds` at most. Keep what is returned until the run has ended.
FileLock take_run(const RunDirectory& run, double seconds = 10);

// The holder's words: {"host":…, "pid":…, "since":…}, or "" when there never was one.
std::string run_holder(const RunDirectory& run);

}  // namespace smlp
