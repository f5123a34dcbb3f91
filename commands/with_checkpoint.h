// The checkpoint a command reads, chosen anew when its run has deleted it meanwhile.
#pragma once

#include <filesystem>
#include <functional>

namespace smlp {

// As find_checkpoint(), and a sentence for each newer one that is passed over.
std::filesystem::path chosen_checkpoint(const std::filesystem::path& run_or_checkpoint);

// `use` of what find_checkpoint() finds in `run_or_checkpoint`, and its exit code. A live run keeps its newest few: one that
// vanishes between choosing and opening it makes `use` fail, and then the newest valid one is chosen again.
int with_checkpoint(const std::filesystem::path& run_or_checkpoint,
                    const std::function<int(const std::filesystem::path& checkpoint)>& use);

}  // namespace smlp
