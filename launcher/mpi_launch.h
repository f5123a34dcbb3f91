// How ranks are started on this host: mpirun with what it needs as root, on too few cores, beside other jobs and
// inside an allocation, so that the user has to know none of it. And the worker program itself.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/cores.h"
#include "core/files.h"

namespace smlp {

// $SMLP_WORKER, or smlp-worker beside our own program. Throws Error(unavailable) when it is not there.
std::filesystem::path find_worker();

struct CoreCount {
  std::int64_t cores = 1;    // physical ones that this process may use
  std::int64_t threads = 1;  // hardware threads that it may use
};
CoreCount count_cores();

// Where Open MPI keeps its sockets and shared memory: a folder of this launch alone, gone with it; in memory (/dev/shm) where
// that has room for so many ranks of this host. One left by a launcher that was killed is swept by the next.
class SessionFolder {
 public:
  explicit SessionFolder(std::int64_t ranks);
  ~SessionFolder();
  SessionFolder(const SessionFolder&) = delete;
  SessionFolder& operator=(const SessionFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  static void sweep();

 private:
  std::filesystem::path path_;
  FileLock lock_;
};

struct LaunchShape {
  std::int64_t ranks = 1, threads = 1;
};

// mpirun and its arguments, up to the program to start. It binds nothing: `bound` ranks do so themselves.
std::vector<std::string> mpirun_command(const LaunchShape& shape, bool bound);
// What tells the ranks of a host to do so; worker/own_cores.h reads it.
std::vector<std::string> binding_option(const CoreDemand& demand);
// Ours, without the marks of an allocation or an outer mpirun, and with what the ranks need.
std::vector<std::string> launch_environment(const LaunchShape& shape, const CoreCount& cores,
                                            const std::filesystem::path& session);
// The same for ranks on the nodes of an allocation, whose marks and transports stay as they are.
std::vector<std::string> allocation_environment(const LaunchShape& on_a_node, const CoreCount& cores);

// Runs the worker in the foreground, stdin, stdout and stderr passed through, under mpirun when shape.ranks > 1;
// its exit code, 128 + signal when it was killed.
int run_worker(const std::vector<std::string>& arguments, const LaunchShape& shape);

}  // namespace smlp
