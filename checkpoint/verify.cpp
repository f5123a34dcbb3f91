#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/disk.h"
#include "checkpoint/reader.h"
#include "checkpoint/refuse.h"
#include "checkpoint/saved_job.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/run_directory.h"

namespace smlp {

namespace fs = std::filesystem;

// Every byte of a shard file belongs to one piece or to the frame: each is digested once.
std::string shard_fault(const fs::path& path, const StoredShard& shard, const Manifest& manifest,
                        const std::function<void()>& between) {
  constexpr std::size_t block_bytes = std::size_t{1} << 20;
  const auto block = std::make_unique_for_overwrite<std::byte[]>(block_bytes);
  const auto file = DiskFile::open(path);
  file.will_read_in_order();
  const auto feed = [&](Digest& digest, std::int64_t at, std::int64_t end) {
    while (at < end) {
      const std::span part(block.get(),
                           static_cast<std::size_t>(std::min<std::int64_t>(end - at, block_bytes)));
      file.read_at(part, at);
      digest.update(part);
      at += std::ssize(part);
      between();
    }
  };
  Digest frame;
  std::string fault;
  const auto element_bytes = [&](const StoredPiece& piece) {
    return size_of(manifest.find(piece.tensor)->dtype);
  };
  walk_shard(shard, element_bytes, [&](std::int64_t at, std::int64_t end, const StoredPiece* piece) {
    if (piece == nullptr) return feed(frame, at, end);
    if (!fault.empty()) return;
    Digest digest;
    feed(digest, at, end);
    if (digest.hex() != piece->digest) {
      fault =
          fmt::format("{}: the bytes of {}, elements [{}, {}), do not match their digest",
                      path.filename().string(), piece->tensor, piece->offset, piece->offset + piece->count);
    }
  });
  if (fault.empty() && frame.hex() != shard.frame_digest) {
    fault =
        fmt::format("{}: the bytes around the tensors do not match their digest", path.filename().string());
  }
  return fault;
}

namespace {

std::string whole_fault(const fs::path& path, const Manifest& manifest) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(manifest.whole_size));
  DiskFile::open(path).read_at(bytes, 0);
  return digest_of(bytes) == manifest.whole_digest
             ? ""
             : fmt::format("{} does not match its digest", path.filename().string());
}

std::string fault_of_part(const fs::path& checkpoint, const Manifest& manifest, int part, int parts,
                          const std::function<void()>& between = [] {}) {
  if (part == 0) {  // before anything is read
    if (auto fault = missing_file(checkpoint, manifest); !fault.empty()) return fault;
  }
  const auto shards = manifest.shards.size();
  for (auto i = static_cast<std::size_t>(part); i <= shards; i += static_cast<std::size_t>(parts)) {
    const auto path = checkpoint / (i == shards ? whole_name : manifest.shards[i].file);
    auto fault = missing_file(path, i == shards ? manifest.whole_size : manifest.shards[i].size);
    if (fault.empty()) {
      fault = i == shards ? whole_fault(path, manifest) : shard_fault(path, manifest.shards[i], manifest, between);
    }
    if (!fault.empty()) return fault;
  }
  return "";
}

std::optional<double> validation_loss_of(const RunState& state) {
  const auto found = state.numbers.find(RunState::validation_loss);
  if (found == state.numbers.end() || found->second.size() != 1) return std::nullopt;
  const double loss = found->second.front();
  return std::isnan(loss) ? std::nullopt : std::optional(loss);
}

// What a later start sets is for what it saves: it takes back no promise. Where another version of smlp wrote the job, that
// version knows.
void read_promises(CheckpointInfo& info, const RunState& state) {
  if (state.text("job").empty()) return;
  try {
    const auto keep = saved_job(state, info.path).config.checkpoint;
    info.stays = keep.keep_every > 0 && info.step % keep.keep_every == 0;
    info.best_stays = keep.keep_best;
  } catch (const Error&) {
    info.stays = true;
  }
}

CheckpointInfo examine(const fs::path& checkpoint, bool thorough) {
  CheckpointInfo info;
  info.path = checkpoint;
  try {
    const auto manifest = read_manifest_of_list(checkpoint);
    info.step = manifest.step;
    info.bytes = manifest.bytes() + static_cast<std::int64_t>(fs::file_size(checkpoint / manifest_name));
    info.ranks = manifest.ranks;
    info.attempt = manifest.attempt;
    info.validation_loss = validation_loss_of(manifest.state);
    read_promises(info, manifest.state);
    info.reason = thorough ? fault_of_part(checkpoint, manifest, 0, 1) : missing_file(checkpoint, manifest);
  } catch (const NewerFormat& newer) {
    info.reason = newer.what();
    info.newer_format = newer.version();
  } catch (const std::exception& error) {
    info.reason = sentence_of(error);
    info.unreadable = !is_damage(error);
  }
  info.valid = info.reason.empty();
  return info;
}

}  // namespace

CheckpointInfo verify_checkpoint(const fs::path& checkpoint) { return examine(checkpoint, true); }
CheckpointInfo inspect_checkpoint(const fs::path& checkpoint) { return examine(checkpoint, false); }

std::string verify_shards(const fs::path& checkpoint, int part, int parts, const std::function<void()>& between) {
  expect(part >= 0 && part < parts, "verify_shards: no such part");
  try {
    return fault_of_part(checkpoint, read_manifest_of_list(checkpoint), part, parts, between);
  } catch (const std::exception& error) {
    if (!is_damage(error)) throw;
    return error.what();
  }
}

}  // namespace smlp
