#include "comm/communicator.h"
#include "core/error.h"

namespace smlp {

std::unique_ptr<Communicator> make_mpi_world(std::int64_t) {
  throw Error(ExitCode::unavailable,
              "this smlp was built without MPI and runs on one rank only: build it with SMLP_MPI=ON, or ask "
              "for one rank");
}

}  // namespace smlp
