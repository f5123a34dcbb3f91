// Temporary files and folders that say whose they are: what a process that was killed has left goes with the next of its kind.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace smlp {

// Where `bench checkpoint` writes, in the folder that it was started in.
inline constexpr std::string_view bench_folder_prefix = "bench-checkpoint.";

// Where temporary files go: TMPDIR, or /tmp. Throws Error(configuration) where that is no folder; `what` was to be written.
std::filesystem::path temporary_folder(std::string_view what);
// "smlp-job-node1.4711": the name of this process's own begins with it, and goes on with a dot.
std::string name_of_own(std::string_view prefix);
// A folder below `parent` under such a name, gone with this object. Throws Error(io_failed) where it can't be made; `what` is
// to lie there.
class OwnFolder {
 public:
  OwnFolder(const std::filesystem::path& parent, std::string_view prefix, std::string_view what);
  ~OwnFolder();
  OwnFolder(const OwnFolder&) = delete;
  OwnFolder& operator=(const OwnFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};
// Removes what processes of this host that are gone have left under such names, as far as it can be removed.
void sweep_leftovers(const std::filesystem::path& folder, std::string_view prefix);

}  // namespace smlp
