// One rank's part of a save: which pieces it writes, their copy in host memory, the shard file and its
// sidecar.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"

namespace smlp {

struct ReleaseStaging {
  Backend* owner = nullptr;  // none: ordinary memory
  void operator()(std::byte* memory) const noexcept;
};

// Host memory that grows to what a save needs and is kept for the next one: pages are touched once. For what lies on a
// device it is the backend's (pinned), and ordinary memory, with a warning, where there is none of that; such a backend
// outlives it.
class Staging {
 public:
  void reserve(Backend& backend, std::int64_t bytes);  // throws std::bad_alloc
  std::span<std::byte> part(std::int64_t position, std::int64_t bytes);

 private:
  std::unique_ptr<std::byte, ReleaseStaging> memory_;
  std::int64_t capacity_ = 0;
};

// What a rank writes, fixed by begin().
struct ShardPlan {
  struct Part {
    std::size_t tensor;  // index into sidecar.tensors
    std::int64_t offset, count;
    std::int64_t staged, bytes;  // place in the staging memory
    std::size_t piece;           // index into the caller's pieces
  };
  Sidecar sidecar;  // the pieces' positions and digests are filled in while writing
  std::vector<Part> parts;
  std::int64_t bytes = 0;
};

std::int64_t staged_bytes(std::span<const Piece> pieces);  // ShardPlan::bytes of them

// Throws Error(fault) when names, shapes, types or ranges contradict each other.
ShardPlan plan_shard(std::span<const Piece> pieces, const WriterOptions& options, const RunState& state);

// Writes rank-….h5 and rank-….json into `folder`, both flushed to the disk, and the folder too.
void write_shard(const std::filesystem::path& folder, ShardPlan& plan, Staging& staging,
                 std::stop_token stop);

}  // namespace smlp
