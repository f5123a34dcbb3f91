#include "tests/comm/comm_case.h"
#include "tests/comm/faraway_backend.h"

namespace smlp::test {

std::vector<CommCase> comm_cases() {
  const auto faraway = [] { return std::make_unique<FarawayBackend>(); };
  return {
      {.name = "solo", .backend = faraway, .make = [](Backend& backend) { return make_solo(backend); }, .alone = true},
      {.name = "mpi", .backend = faraway, .make = [](Backend&) { return make_mpi_world(); }, .of_the_backend = false},
      {.name = "mpi_in_pieces",
       .backend = faraway,
       .make = [](Backend&) { return make_mpi_world(24); },
       .of_the_backend = false,
       .most = 101},
      {.name = "staged",
       .backend = faraway,
       .make = [](Backend& backend) { return make_staged(make_mpi_world(), backend); }},
  };
}

}  // namespace smlp::test
