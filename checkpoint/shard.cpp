#include "checkpoint/shard.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>

#include "checkpoint/disk.h"
#include "checkpoint/hdf5_image.h"
#include "checkpoint/names.h"
#include "checkpoint/refuse.h"
#include "core/digest.h"
#include "core/error.h"

namespace smlp {

void ReleaseStaging::operator()(std::byte* memory) const noexcept {
  owner ? owner->release_host(memory) : std::free(memory);
}

void Staging::reserve(Backend& backend, std::int64_t bytes) {
  if (bytes <= capacity_) return;
  memory_.reset();
  capacity_ = 0;
  if (!backend.in_host_memory()) {
    try {
      memory_ = {static_cast<std::byte*>(backend.allocate_host(bytes)), ReleaseStaging{&backend}};
      capacity_ = bytes;
      return;
    } catch (const Error& none) {
      spdlog::warn("{}; checkpoints are copied into ordinary memory: training waits longer for them", none.what());
    }
  }
  constexpr std::size_t huge_page = std::size_t{2} << 20;
  const auto rounded = (static_cast<std::size_t>(bytes) + huge_page - 1) / huge_page * huge_page;
  void* memory = std::aligned_alloc(huge_page, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  ::madvise(memory, rounded, MADV_HUGEPAGE);
  memory_ = {static_cast<std::byte*>(memory), ReleaseStaging{}};
  capacity_ = static_cast<std::int64_t>(rounded);
}

std::span<std::byte> Staging::part(std::int64_t position, std::int64_t bytes) {
  return {memory_.get() + position, static_cast<std::size_t>(bytes)};
}

namespace {

// Names become paths in HDF5.
void check_name(const std::string& name) {
  const std::string padded = "/" + name + "/";
  if (name.empty() || padded.find("//") != std::string::npos || padded.find("/./") != std::string::npos ||
      name.find('\0') != std::string::npos) {
    refuse_save(fmt::format("'{}' can't be the name of a tensor in a checkpoint", name));
  }
}

void check_piece(const Piece& piece) {
  check_name(piece.name);
  if (piece.local.size() > 0 && !piece.local.contiguous()) {
    refuse_save(fmt::format("checkpoint: the piece of {} is strided", piece.name));
  }
  if (piece.offset < 0 || piece.offset + piece.local.size() > piece.global_shape.size()) {
    refuse_save(fmt::format("checkpoint: the piece of {} covers elements [{}, {}) of a tensor of shape {}",
                            piece.name, piece.offset, piece.offset + piece.local.size(),
                            piece.global_shape.text()));
  }
}

// In whole.h5 a name with '/' lies in groups: no tensor may be named like a group of another.
void check_groups(const std::map<std::string, LogicalTensor>& tensors) {
  for (const auto& [name, tensor] : tensors) {
    for (auto slash = name.find('/'); slash != std::string::npos; slash = name.find('/', slash + 1)) {
      if (tensors.contains(name.substr(0, slash))) {
        refuse_save(
            fmt::format("checkpoint: tensor {} is named like the group of {}", name.substr(0, slash), name));
      }
    }
  }
}

std::vector<LogicalTensor> collect_tensors(std::span<const Piece> pieces) {
  std::map<std::string, LogicalTensor> tensors;
  for (const auto& piece : pieces) {
    check_piece(piece);
    const auto [place, fresh] =
        tensors.try_emplace(piece.name, LogicalTensor{piece.name, piece.global_shape, piece.local.dtype});
    if (!fresh && (place->second.shape != piece.global_shape || place->second.dtype != piece.local.dtype)) {
      refuse_save(fmt::format("checkpoint: two pieces of {} disagree about its shape or type", piece.name));
    }
  }
  check_groups(tensors);
  std::vector<LogicalTensor> list;
  for (auto& [name, tensor] : tensors) list.push_back(std::move(tensor));
  return list;
}

std::size_t index_of(const std::vector<LogicalTensor>& tensors, const std::string& name) {
  const auto place =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const LogicalTensor& tensor, const std::string& key) { return tensor.name < key; });
  return static_cast<std::size_t>(place - tensors.begin());
}

std::int64_t staged(const TensorView& local) { return (local.bytes() + 63) / 64 * 64; }

class ShardStream {
 public:
  ShardStream(DiskFile& file, std::stop_token stop) : stream_(file, std::move(stop)) {}

  void frame(const SparseBytes& bytes, std::int64_t end) {
    while (stream_.position() < end) {
      const auto part = std::span(scratch_).first(
          static_cast<std::size_t>(std::min<std::int64_t>(end - stream_.position(), std::ssize(scratch_))));
      bytes.read(stream_.position(), part);
      frame_.update(part);
      stream_.write(part);
    }
  }

  // The digest is taken while a block is in the cache on its way to the disk.
  std::string data(std::span<const std::byte> bytes) {
    Digest digest;
    while (!bytes.empty()) {
      const auto within = static_cast<std::size_t>(stream_.position()) % BlockStream::block_bytes;
      const auto block = bytes.first(std::min(bytes.size(), BlockStream::block_bytes - within));
      digest.update(block);
      stream_.write(block);
      bytes = bytes.subspan(block.size());
    }
    return digest.hex();
  }

  std::string finish() {
    stream_.flush();
    return frame_.hex();
  }

 private:
  BlockStream stream_;
  Digest frame_;
  std::array<std::byte, 4096> scratch_;
};

// From front to back, frame and pieces as they come; fills in positions and digests.
void stream_shard(DiskFile& file, const ShardImage& image, ShardPlan& plan, Staging& staging,
                  std::stop_token stop) {
  std::vector<std::size_t> order(plan.parts.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return image.positions[a] < image.positions[b]; });
  auto& shard = plan.sidecar.shard;
  shard.pieces.clear();  // of another file with the same contents
  ShardStream stream(file, std::move(stop));
  for (const auto i : order) {
    const auto& part = plan.parts[i];
    stream.frame(image.frame, image.positions[i]);
    shard.pieces.push_back({.tensor = plan.sidecar.tensors[part.tensor].name,
                            .offset = part.offset,
                            .count = part.count,
                            .position = image.positions[i],
                            .digest = stream.data(staging.part(part.staged, part.bytes))});
  }
  stream.frame(image.frame, image.size);
  shard.frame_digest = stream.finish();
  shard.size = image.size;
}

}  // namespace

std::int64_t staged_bytes(std::span<const Piece> pieces) {
  std::int64_t bytes = 0;
  for (const auto& piece : pieces) {
    if (piece.mine) bytes += staged(piece.local);
  }
  return bytes;
}

ShardPlan plan_shard(std::span<const Piece> pieces, const WriterOptions& options, const RunState& state) {
  ShardPlan plan;
  plan.sidecar = {.step = state.integer("step"),
                  .attempt = options.attempt,
                  .rank = options.rank,
                  .ranks = options.ranks,
                  .state = state,
                  .tensors = collect_tensors(pieces),
                  .shard = {.file = shard_name(options.rank), .size = 0, .frame_digest = {}, .pieces = {}}};
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const auto& piece = pieces[i];
    if (!piece.mine || piece.local.size() == 0) continue;
    const auto bytes = piece.local.bytes();
    plan.parts.push_back({.tensor = index_of(plan.sidecar.tensors, piece.name),
                          .offset = piece.offset,
                          .count = piece.local.size(),
                          .staged = plan.bytes,
                          .bytes = bytes,
                          .piece = i});
    plan.bytes += staged(piece.local);
  }
  return plan;
}

void write_shard(const std::filesystem::path& folder, ShardPlan& plan, Staging& staging,
                 std::stop_token stop) {
  const auto sidecar_path = folder / sidecar_name(plan.sidecar.rank);
  remove_file(sidecar_path);  // of a failed save of the same step
  std::vector<PieceOutline> outlines;
  for (const auto& part : plan.parts) {
    outlines.push_back({&plan.sidecar.tensors[part.tensor], part.offset, part.count});
  }
  const auto image = make_shard_image(plan.sidecar, outlines);
  auto file = DiskFile::create(folder / plan.sidecar.shard.file);
  file.reserve(image.size);
  stream_shard(file, image, plan, staging, std::move(stop));
  file.sync();
  file.close();
  write_file(sidecar_path, to_text(plan.sidecar));
  sync_folder(folder);
}

}  // namespace smlp
