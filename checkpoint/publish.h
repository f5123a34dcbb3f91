// Rank 0's part of a save, once every shard is on disk: gather the sidecars, refuse what doesn't fit
// together, write manifest and whole.h5, rename, point LATEST at it, and let old ones go.
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint/checkpoint.h"

namespace smlp {

// Throws Error when nothing was published; `folder` is then still there. Returns what went wrong after the
// checkpoint was published (a hint not written, an old one not removed), "" for nothing.
std::string publish_checkpoint(const WriterOptions& options, const std::filesystem::path& folder,
                               std::int64_t step, const RunState& state);

// The fence: an attempt that starts raises it; one that is below it may not publish any more.
void raise_fence(const std::filesystem::path& root,
                 int attempt);  // throws Error(call_again) when it is higher

// Keeps the newest keep_last sound checkpoints, those of every keep_every-th step (damaged ones too: most of such a one may
// still be got out of it), and the best sound one. Throws Error(io_failed), and deletes none, where one can't be read now.
void apply_retention(const WriterOptions& options);

}  // namespace smlp
