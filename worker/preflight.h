// What a node can do, asked before an attempt: one process a node, without MPI, and one line of JSON on stdout that
// launcher/preflight.h reads and judges. Ends within 10 s whatever the disks do, and leaves no file behind.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace smlp {

struct PreflightOptions {
  std::filesystem::path run_dir;
  bool run_dir_made_later = false;           // it need not be there yet
  std::optional<std::filesystem::path> job;  // for threads a rank and the local folder
};
// Ends the process: threads may still wait for a disk.
[[noreturn]] void preflight_command(const PreflightOptions& options);

// Collective, under MPI: every rank exchanges 1 MiB with others, in pairs, and rank 0 prints one line of JSON:
//   {hosts: [of each rank], pairs: [{a, b, bytes_per_second}], median}
// Ends within 60 s, by force if need be.
void preflight_exchange_command();

}  // namespace smlp
