// Saves in folders of the nodes' own, which other nodes can't see: each rank's shard, and copies of the shards of ranks
// elsewhere. A shard counts once its sidecar is there, which is written last; a save is whole when every rank's shard of
// it is on some node, whoever holds it. The worker asks around (worker/local_restore.h); here are the files.
//   step-00000120.attempt-0003/rank-0002.h5, rank-0002.json              written by rank 2
//   step-00000120.attempt-0003/rank-0001.copy.h5, rank-0001.copy.json    the same files of rank 1, held for it
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"

namespace smlp {

struct SaveId {
  std::int64_t step = 0;
  int attempt = 0;
  auto operator<=>(const SaveId&) const = default;
};

struct LocalFiles {
  std::filesystem::path shard, sidecar;
};
LocalFiles local_files(const std::filesystem::path& root, SaveId save, int rank, bool copy);

struct LocalShard {
  SaveId save;
  int rank = 0, ranks = 0;
  bool copy = false;
  std::string sidecar;         // as it is on the disk: the same for a shard and its copy
  std::filesystem::path file;  // the shard
};

// What lies in a node's folder and may count; `faults`: a sentence for each sidecar that does not hold. What can't be
// read is not there. Throws Error(configuration) where one is of a newer format than this program reads.
struct LocalListing {
  std::vector<LocalShard> shards;  // by save, rank, original first
  std::vector<std::string> faults;
};
LocalListing list_local(const std::filesystem::path& root);

// Every byte; "" when it is sound. `between` is called after each block.
std::string verify_local(const LocalShard& shard, const std::function<void()>& between = [] {});

// Removes every save but these, or of those up to a step: a rank of the same node may have begun the next one. Several
// ranks may do so at once; what can't be removed stays, for the next.
void keep_local(const std::filesystem::path& root, std::span<const SaveId> keep,
                std::optional<std::int64_t> up_to = std::nullopt) noexcept;

// Stored pieces of one shard, as bytes.
class LocalShardReader {
 public:
  explicit LocalShardReader(const std::filesystem::path& file) : file_(DiskFile::open(file)) {}
  void read(const StoredPiece& piece, std::int64_t first, std::int64_t element_bytes, std::span<std::byte> bytes) const {
    file_.read_at(bytes, piece.position + (first - piece.offset) * element_bytes);
  }

 private:
  DiskFile file_;
};

// Fills a rank's pieces from stored ones as they come in, whatever layout stored them. The pieces must outlive it.
class PieceFiller {
 public:
  // Throws Error(configuration) when pieces and save don't name the same tensors with the same shapes and types.
  // `weights_only`: "adam.…" and the like, whose names hold a '/', are left out on both sides.
  PieceFiller(const Manifest& manifest, const std::string& where, Backend& backend, std::span<const Piece> pieces,
              bool weights_only = false);
  bool wants(const std::string& tensor, std::int64_t first, std::int64_t count) const;  // any element of these
  // Elements of a tensor from `first` on; what no piece wants is passed over.
  void fill(const std::string& tensor, std::int64_t first, std::span<const std::byte> bytes);

 private:
  Backend& backend_;
  std::map<std::string, std::vector<const Piece*>> pieces_;
};

}  // namespace smlp
