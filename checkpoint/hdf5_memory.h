// An HDF5 file that lies in memory and holds only the bytes that HDF5 itself wrote: the frame around the data
// of datasets whose space is allocated and never filled. HDF5 gets it as a file driver, so that the library
// never meets a full disk (docs/decisions/0002).
#pragma once

#include <cstdint>

#include "checkpoint/hdf5_handle.h"
#include "checkpoint/sparse_bytes.h"

namespace smlp {

// File access properties whose file is `bytes`, which must outlive the file opened with them. `alignment`: of
// objects of at least `aligned_from` bytes.
Hdf5Handle memory_access(SparseBytes& bytes, std::int64_t aligned_from, std::int64_t alignment);

}  // namespace smlp
