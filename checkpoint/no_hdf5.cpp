// A build without HDF5: checkpoints are read, which needs none of it, and none is written.
#include "checkpoint/hdf5_image.h"
#include "core/features.h"

namespace smlp {

ShardImage make_shard_image(const Sidecar&, const std::vector<PieceOutline>&) {
  need_checkpoints("a save writes");
  return {};
}

std::string make_whole_image(const Manifest&) {
  need_checkpoints("a save writes");
  return "";
}

}  // namespace smlp
