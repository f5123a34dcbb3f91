// What this build can do: by the options SMLP_CUDA, SMLP_MPI, SMLP_HDF5, SMLP_ONEDNN and SMLP_PROMETHEUS of CMake. What was
// left out is another file in its room (comm/no_mpi.cpp, …); here is the word of it for those who know no such room.
#pragma once

#include <cstdint>
#include <string>

namespace smlp {

bool built_with_cuda();
bool built_with_nccl();
bool built_with_mpi();   // else: one rank
bool built_with_hdf5();  // else: checkpoints are read, and none is written
std::string left_out();  // "MPI, HDF5"; empty: nothing that can be

// Throws Error(unavailable) in a build that can't write checkpoints; `what` begins the sentence.
void need_checkpoints(const std::string& what);

// Throws Error(unavailable) where so many ranks need the MPI that this build lacks.
void need_ranks(std::int64_t ranks);

}  // namespace smlp
