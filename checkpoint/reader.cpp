#include "checkpoint/reader.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/digest.h"
#include "core/error.h"

namespace smlp {

namespace fs = std::filesystem;

namespace {
constexpr std::size_t block_bytes = std::size_t{1} << 20;
constexpr std::size_t most_open_files = 64;
}  // namespace

std::string missing_file(const fs::path& path, std::int64_t size) {
  std::error_code error;
  const auto found = fs::file_size(path, error);
  if (error && !is_damage(error)) fail_io("looking at", path, error.value());
  if (error) return fmt::format("{} is missing", path.filename().string());
  if (static_cast<std::int64_t>(found) == size) return "";
  return fmt::format("{} has {} bytes; the manifest says {}", path.filename().string(), found, size);
}

std::string missing_file(const fs::path& checkpoint, const Manifest& manifest) {
  for (const auto& shard : manifest.shards) {
    auto fault = missing_file(checkpoint / shard.file, shard.size);
    if (!fault.empty()) return fault;
  }
  return missing_file(checkpoint / whole_name, manifest.whole_size);
}

CheckpointReader::CheckpointReader(fs::path checkpoint)
    : checkpoint_(std::move(checkpoint)),
      manifest_(read_manifest(checkpoint_)),
      block_(std::make_unique_for_overwrite<std::byte[]>(block_bytes)) {
  const auto fault = missing_file(checkpoint_, manifest_);
  if (!fault.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("{}: {}", checkpoint_.string(), fault));
  }
  for (const auto& shard : manifest_.shards) {
    for (const auto& piece : shard.pieces) places_[piece.tensor].push_back({&shard, &piece});
  }
  for (auto& [name, places] : places_) {
    std::sort(places.begin(), places.end(),
              [](const Place& a, const Place& b) { return a.piece->offset < b.piece->offset; });
  }
}

const LogicalTensor& CheckpointReader::tensor(const std::string& name) const {
  return tensor_named(manifest_, checkpoint_.string(), name);
}

DiskFile& CheckpointReader::open(const StoredShard& shard) {
  if (const auto found = files_.find(shard.file); found != files_.end()) return found->second;
  if (files_.size() >= most_open_files) files_.clear();
  return files_.emplace(shard.file, DiskFile::open(checkpoint_ / shard.file)).first->second;
}

void CheckpointReader::read_part(const Place& place, const LogicalTensor& tensor, std::int64_t from,
                                 std::int64_t to, const Sink& sink) {
  const auto& [shard, piece] = place;
  const auto element = size_of(tensor.dtype);
  const auto step = static_cast<std::int64_t>(block_bytes) / element;
  auto& file = open(*shard);
  Digest digest;
  for (auto at = from; at < to; at += step) {
    const auto count = std::min(step, to - at);
    const auto bytes = std::span(block_.get(), static_cast<std::size_t>(count * element));
    file.read_at(bytes, piece->position + (at - piece->offset) * element);
    digest.update(bytes);
    sink(at, bytes);
  }
  const bool whole = from == piece->offset && to == piece->offset + piece->count;
  if (whole && digest.hex() != piece->digest) {
    throw Error(ExitCode::bad_data,
                fmt::format("{}: the bytes of {}, elements [{}, {}), do not match their digest",
                            (checkpoint_ / shard->file).string(), tensor.name, from, to));
  }
}

void CheckpointReader::read(const LogicalTensor& tensor, std::int64_t offset, std::int64_t count,
                            const Sink& sink) {
  const auto end = offset + count;
  expect(offset >= 0 && end <= tensor.shape.size(), "checkpoint: a range beyond the end of its tensor");
  if (count == 0) return;
  const auto& places = places_.at(tensor.name);
  auto place = std::upper_bound(places.begin(), places.end(), offset,
                                [](std::int64_t at, const Place& p) { return at < p.piece->offset; });
  for (--place; place != places.end() && place->piece->offset < end; ++place) {
    const auto from = std::max(offset, place->piece->offset);
    const auto to = std::min(end, place->piece->offset + place->piece->count);
    read_part(*place, tensor, from, to, sink);
  }
}

std::vector<std::byte> CheckpointReader::read_all(const LogicalTensor& tensor) {
  std::vector<std::byte> all(static_cast<std::size_t>(tensor.shape.size() * size_of(tensor.dtype)));
  read(tensor, 0, tensor.shape.size(), [&](std::int64_t first, std::span<const std::byte> bytes) {
    std::copy(bytes.begin(), bytes.end(), all.begin() + first * size_of(tensor.dtype));
  });
  return all;
}

}  // namespace smlp
