// The one file that says what a checkpoint is: run state, tensors, and for every shard where each piece lies
// and what its digest is. The first line holds the digest of all that follows, so the manifest vouches for
// itself and for every other file. A sidecar is a rank's part of it, on its way to rank 0.
// docs/checkpoint_format.md.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace smlp {

constexpr int checkpoint_format_version = 1;
constexpr const char* whole_name = "whole.h5";

// Elements [offset, offset + count) of a tensor, as adjacent bytes of a shard file from `position` on.
struct StoredPiece {
  std::string tensor;
  std::int64_t offset = 0, count = 0, position = 0;
  std::string digest;
  bool operator==(const StoredPiece&) const = default;
};

struct StoredShard {
  std::string file;
  std::int64_t size = 0;
  std::string frame_digest;         // of all bytes that belong to no piece
  std::vector<StoredPiece> pieces;  // by position
  bool operator==(const StoredShard&) const = default;
};

struct Manifest {
  std::int64_t step = 0;
  int attempt = 0, ranks = 0;
  RunState state;
  std::vector<LogicalTensor> tensors;  // by name
  std::vector<StoredShard> shards;     // by rank
  std::int64_t whole_size = 0;
  std::string whole_digest;

  const LogicalTensor* find(const std::string& name) const;
  std::int64_t bytes() const;  // of all files but the manifest
};

struct Sidecar {
  std::int64_t step = 0;
  int attempt = 0, rank = 0, ranks = 0;
  RunState state;
  std::vector<LogicalTensor> tensors;  // all that the rank knows of, whoever writes them; by name
  StoredShard shard;
};

std::string to_text(const Manifest& manifest);
std::string to_text(const Sidecar& sidecar);
// Throw Error(bad_data) with the reason when the text was changed, is of a newer format, or contradicts
// itself.
Manifest parse_manifest(const std::string& text);
Sidecar parse_sidecar(const std::string& text);
// The sentence begins with the checkpoint's path, or (for lists that name it themselves) with the file's name.
Manifest read_manifest(const std::filesystem::path& checkpoint);
Manifest read_manifest_of_list(const std::filesystem::path& checkpoint);

// What the sidecars of one save say together, in the order given, without whole.h5; the run state is the first one's.
// Throws Error(fault) when two of them disagree about a tensor. Whether every element is there: coverage_fault().
Manifest manifest_of(std::vector<Sidecar> sidecars);

// Throws Error(bad_data) when pieces overlap in their file, go beyond its end or are of no known tensor: what
// walk_shard() and every reader rely on.
void check_places(const Manifest& manifest);

// The tensor of that name; throws Error(configuration) with the nearest one. `where`: whose manifest it is, for the sentence.
const LogicalTensor& tensor_named(const Manifest& manifest, const std::string& where, const std::string& name);

// "" when the shards hold every element of every tensor exactly once, else a sentence naming tensor and
// place.
std::string coverage_fault(const std::vector<LogicalTensor>& tensors, const std::vector<StoredShard>& shards);

// Bit for bit; empty when equal.
std::vector<TensorDifference> difference_of(const RunState& a, const RunState& b);

Shape shape_of(const std::vector<std::int64_t>& dims);
std::vector<std::int64_t> dims_of(const Shape& shape);

// Walks a shard file from front to back: piece is null for what lies before, between and after the pieces.
// element_bytes(piece) is the size of one element.
template <class ElementBytes, class Visit>
void walk_shard(const StoredShard& shard, const ElementBytes& element_bytes, const Visit& visit) {
  std::int64_t at = 0;
  for (const auto& piece : shard.pieces) {
    if (piece.position > at) visit(at, piece.position, static_cast<const StoredPiece*>(nullptr));
    at = piece.position + piece.count * element_bytes(piece);
    visit(piece.position, at, &piece);
  }
  if (shard.size > at) visit(at, shard.size, static_cast<const StoredPiece*>(nullptr));
}

}  // namespace smlp
