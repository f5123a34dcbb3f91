#include "core/run_directory.h"

#include <fmt/format.h>

namespace smlp {

std::filesystem::path RunDirectory::log_folder(int attempt) const {
  return root / "logs" / fmt::format("attempt-{:04}", attempt);
}
std::filesystem::path RunDirectory::log(int attempt, int rank) const {
  return log_folder(attempt) / fmt::format("rank-{:04}.log", rank);
}
std::filesystem::path RunDirectory::error(int attempt, int rank) const {
  return log(attempt, rank).replace_extension(".error");
}
std::filesystem::path RunDirectory::mpirun_log(int attempt) const { return log_folder(attempt) / "mpirun.log"; }
std::filesystem::path RunDirectory::heartbeat(int rank) const {
  return heartbeats() / fmt::format("rank-{:04}", rank);
}

}  // namespace smlp
