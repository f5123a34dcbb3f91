// Reads logical tensors out of a checkpoint, whatever layout wrote it: bytes at the places the manifest
// names.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"

namespace smlp {

class CheckpointReader {
 public:
  // Reads the manifest and checks that every file is there with its size; throws Error(bad_data), or io_failed where that
  // can't be told now.
  explicit CheckpointReader(std::filesystem::path checkpoint);

  const std::filesystem::path& path() const { return checkpoint_; }
  const Manifest& manifest() const { return manifest_; }
  const LogicalTensor& tensor(const std::string& name) const;  // throws Error(configuration) with the nearest name

  // Elements [offset, offset + count), in order, in blocks: sink(first element, bytes). Where a stored piece
  // lies wholly within the range its digest is compared, after its last block; a difference throws
  // Error(bad_data).
  using Sink = std::function<void(std::int64_t, std::span<const std::byte>)>;
  void read(const LogicalTensor& tensor, std::int64_t offset, std::int64_t count, const Sink& sink);
  std::vector<std::byte> read_all(const LogicalTensor& tensor);

 private:
  struct Place {
    const StoredShard* shard;
    const StoredPiece* piece;
  };
  DiskFile& open(const StoredShard& shard);
  void read_part(const Place& place, const LogicalTensor& tensor, std::int64_t from, std::int64_t to,
                 const Sink& sink);

  std::filesystem::path checkpoint_;
  Manifest manifest_;
  std::map<std::string, std::vector<Place>> places_;  // of a tensor, by offset
  std::map<std::string, DiskFile> files_;
  std::unique_ptr<std::byte[]> block_;
};

// "" when every byte of a shard's file matches its digest; a sentence that names the file's tensor otherwise. Throws
// Error when it can't be read: bad_data or io_failed, as is_damage() has it. `between` is called after each block.
std::string shard_fault(const std::filesystem::path& file, const StoredShard& shard, const Manifest& manifest,
                        const std::function<void()>& between = [] {});

// "" when the file, or every file of the manifest, is there and has its size. Throws Error(io_failed) where that can't be told now.
std::string missing_file(const std::filesystem::path& file, std::int64_t size);
std::string missing_file(const std::filesystem::path& checkpoint, const Manifest& manifest);

}  // namespace smlp
