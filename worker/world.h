// The ranks this process belongs to. One communicator is kept aside until main() leaves, so that an error that has
// unwound everything else can still be told to the peers, who may be waiting in a collective.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"

namespace smlp {

bool started_by_mpi();
// Under mpirun or srun: all its ranks, which talk as cluster.communicator says. Started by hand: one rank, without MPI.
std::unique_ptr<Communicator> join_world(Backend& backend, const std::string& communicator);
void leave_world();                                // main(), when all went well
[[noreturn]] void end_world(int status) noexcept;  // main(), otherwise: ends every rank

}  // namespace smlp
