// Does the disk of the run directory take anything? One that is full ends attempts that nothing is wrong with, one after
// the other, faster than room comes back: who starts them waits first, for a while.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace smlp {

constexpr double full_disk_patience_seconds = 600;

// Writes a file of 1 MiB there, and takes it away. Why there is no room for it, or fewer than `bytes` are free; empty
// where there is room, and where something else is wrong, which waiting would not mend.
std::string why_no_room(const std::filesystem::path& folder, std::int64_t bytes = 0);

}  // namespace smlp
