// Ranks with an emulated GPU each. The host's part is a communicator over MPI.
#include "tests/comm/comm_case.h"

namespace smlp::test {

std::vector<CommCase> comm_cases() {
  const auto gpu = [] { return make_cuda_backend(); };
  return {
      {.name = "cuda_staged",
       .backend = gpu,
       .make = [](Backend& backend) { return make_staged(make_mpi_world(), backend); }},
      {.name = "nccl", .backend = gpu, .make = [](Backend& backend) { return make_nccl(make_mpi_world(), backend); }},
  };
}

}  // namespace smlp::test
