// The HDF5 side of a checkpoint: what surrounds the data of a shard, and the file that shows every tensor
// whole. Both are made in memory; the caller writes them to disk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/sparse_bytes.h"

namespace smlp {

struct ShardImage {
  SparseBytes frame;  // all bytes but those of the pieces
  std::int64_t size = 0;
  std::vector<std::int64_t> positions;  // of each piece's first byte, in the order given
};

struct PieceOutline {
  const LogicalTensor* tensor;
  std::int64_t offset, count;
};

ShardImage make_shard_image(const Sidecar& sidecar, const std::vector<PieceOutline>& pieces);

// whole.h5: virtual datasets over the shards beside it, and the run state as attributes of the root.
std::string make_whole_image(const Manifest& manifest);

}  // namespace smlp
