// How a worker starts: the newest valid checkpoint of the run, chosen by all ranks together before any loads.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "comm/communicator.h"

namespace smlp {

// Verification is shared out over the ranks. A checkpoint that does not hold is set aside and reported to
// `rejected` (rank 0) with the reason; so is one newer than `not_after`. nullopt: start from the first step.
std::optional<std::filesystem::path> choose_checkpoint(
    const std::filesystem::path& checkpoints, std::optional<std::int64_t> not_after, Communicator& world,
    const std::function<void(const std::filesystem::path&, const std::string& reason)>& rejected,
    const std::function<void()>& between);

}  // namespace smlp
