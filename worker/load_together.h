// How a save comes into the memory of all ranks, from either tier: each shard is read by one of them, and what others need of
// it travels between the ranks. So a disk gives every byte once, however many ranks hold a tensor alike, and whatever layout
// wrote it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "comm/communicator.h"

namespace smlp {

struct ShardSource {
  int reader = 0;              // of all ranks
  std::filesystem::path file;  // counts for the reader alone
};

struct StoredSave {
  std::string name;  // for sentences: a path, "the local save of step 30"
  Manifest manifest;
  std::vector<ShardSource> sources;  // by shard
};

// Each shard is read by the rank that verifies it (verify_shards), whose memory may still hold it.
StoredSave shared_save(const std::filesystem::path& checkpoint, int ranks);

struct LoadTogether {
  bool weights_only = false;                   // as of PieceFiller
  std::function<void()> between = [] {};       // after each block: a slow disk is no hang
  std::int64_t block_bytes = std::int64_t{1} << 20;  // that travel at once
};
// Fills the pieces; collective. Bytes that no rank needs are not read; readers compare the digests of stored pieces of which
// they read all. Throws, on the reader alone, Error(bad_data) naming tensor and save, or what reading throws; on every rank
// Error(configuration) where pieces and save don't name the same tensors.
void load_together(const StoredSave& save, Communicator& world, Backend& backend, std::span<const Piece> pieces,
                   const LoadTogether& options = {});

}  // namespace smlp
