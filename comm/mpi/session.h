// MPI of this process: initialised when the first communicator is made, finalised when the last one is gone.
// Shared by the communicators of comm/mpi and seen by nobody else.
#pragma once

#include <memory>

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

namespace smlp {

class MpiSession {
 public:
  static std::shared_ptr<MpiSession> get();  // the one alive, or a new one; MPI can't be initialised twice
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  [[noreturn]] static void abort(int status) noexcept;  // from any thread, in bounded time

 private:
  MpiSession();
};

// Throws Error(fault) naming the call, the rank and what MPI said when `status` is a failure.
void check_mpi(int status, const char* call, int rank, int ranks);

}  // namespace smlp
