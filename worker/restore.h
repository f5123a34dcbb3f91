// How a worker starts: the newest save of the run that holds, in the shared directory or on the nodes, chosen by all
// ranks together before any loads.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "worker/local_restore.h"

namespace smlp {

// Where a run goes on from: one of the two. The same on every rank.
struct RestorePoint {
  std::filesystem::path shared;
  std::optional<LocalSource> local;
  std::filesystem::path shared_beside{};  // a local one: the shared directory's newest, as far as manifest and sizes tell
};

struct RestoreOptions {
  std::filesystem::path checkpoints;
  std::optional<std::int64_t> not_after;
  LocalStart* local = nullptr;  // none: the shared directory alone
  std::function<void(const std::string& sentence)> warn{};  // rank 0: what earlier attempts left can't be removed
};

// Verification is shared out over the ranks. A checkpoint of the shared directory that does not hold is set aside and
// reported to `rejected` (rank 0) with the reason; so is one newer than `not_after`. A step that both tiers have is taken
// from the shared one. nullopt: start from the first step. Throws Error(io_failed) where the newest can't be read now, by
// whatever rank: it may hold; Error(configuration) where one is of a newer format, before anything is moved. `between` is
// called often: what takes long is no hang.
std::optional<RestorePoint> choose_checkpoint(
    const RestoreOptions& options, Communicator& world,
    const std::function<void(const std::filesystem::path&, const std::string& reason)>& rejected,
    const std::function<void()>& between);

}  // namespace smlp
