// Every rank knows which block of which stored piece each of them needs. Pieces that all need are broadcast, block by block in
// step. Then each goes through the others at its own pace, in the same order: what a rank reads for itself waits for nobody, the
// rest goes from rank to rank, and who has nothing to do with a block passes on to the next at once.
#include "worker/load_together.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "checkpoint/local.h"
#include "core/digest.h"
#include "core/error.h"
#include "worker/side_by_side.h"

namespace smlp {

namespace {

// Elements [first, first + count) of a stored piece.
struct Block {
  std::size_t shard = 0;
  const StoredPiece* piece = nullptr;
  std::int64_t first = 0, count = 0, element_bytes = 1;
};

std::vector<Block> blocks_of(const Manifest& manifest, std::int64_t block_bytes) {
  std::vector<Block> blocks;
  for (std::size_t shard = 0; shard < manifest.shards.size(); ++shard) {
    for (const auto& piece : manifest.shards[shard].pieces) {
      const auto element_bytes = size_of(manifest.find(piece.tensor)->dtype);
      const auto step = std::max<std::int64_t>(block_bytes / element_bytes, 1);
      for (std::int64_t done = 0; done < piece.count; done += step) {
        blocks.push_back({shard, &piece, piece.offset + done, std::min(step, piece.count - done), element_bytes});
      }
    }
  }
  return blocks;
}

// Which rank needs which block.
class Needs {
 public:
  Needs(std::span<const Block> blocks, const PieceFiller& filler, Communicator& world)
      : bytes_of_a_rank_((blocks.size() + 7) / 8) {
    std::vector<std::byte> mine(bytes_of_a_rank_);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const auto& block = blocks[i];
      if (filler.wants(block.piece->tensor, block.first, block.count)) mine[i / 8] |= std::byte{1} << (i % 8);
    }
    for (const auto& one : world.gather_bytes(mine, 0)) bits_.insert(bits_.end(), one.begin(), one.end());
    world.broadcast_bytes(bits_, 0);
  }

  bool of(int rank, std::size_t block) const {
    const auto byte = bits_[static_cast<std::size_t>(rank) * bytes_of_a_rank_ + block / 8];
    return (byte >> (block % 8) & std::byte{1}) != std::byte{0};
  }

 private:
  std::size_t bytes_of_a_rank_;
  std::vector<std::byte> bits_;
};

class Distribution {
 public:
  Distribution(const StoredSave& save, Communicator& world, PieceFiller& filler, const LoadTogether& options)
      : save_(save),
        world_(world),
        group_(world.split(0, world.rank())),
        filler_(filler),
        between_(options.between),
        blocks_(blocks_of(save.manifest, options.block_bytes)),
        needs_(blocks_, filler, world),
        in_step_(blocks_.size()) {
    for (std::size_t first = 0, end = 0; first < blocks_.size(); first = end) {
      bool all = true;
      for (; end < blocks_.size() && blocks_[end].piece == blocks_[first].piece; ++end) all = all && all_need(end);
      std::fill(in_step_.begin() + static_cast<std::ptrdiff_t>(first), in_step_.begin() + static_cast<std::ptrdiff_t>(end), all);
    }
  }

  void run() {
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      if (!in_step_[i]) continue;
      broadcast(i);
      between_();
    }
    SideBySide ranks(world_, between_);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      if (!in_step_[i]) pass_on(i, ranks);
    }
    ranks.finish();
  }

 private:
  int reader_of(std::size_t i) const { return save_.sources[blocks_[i].shard].reader; }
  bool mine(std::size_t i) const { return needs_.of(world_.rank(), i); }

  // Of several ranks; the reader has it anyway.
  bool all_need(std::size_t i) const {
    for (int rank = 0; rank < world_.size(); ++rank) {
      if (rank != reader_of(i) && !needs_.of(rank, i)) return false;
    }
    return world_.size() > 1;
  }

  void broadcast(std::size_t i) {
    if (reader_of(i) == world_.rank()) read(i);
    world_.broadcast_bytes(bytes_, reader_of(i));
    if (mine(i)) fill(i);
  }

  void pass_on(std::size_t i, SideBySide& ranks) {
    const bool reading = reader_of(i) == world_.rank();
    if (!reading && !mine(i)) return;
    if (reading) {
      std::vector<int> others;
      for (int rank = 0; rank < world_.size(); ++rank) {
        if (rank != world_.rank() && needs_.of(rank, i)) others.push_back(rank);
      }
      if (others.empty() && !mine(i)) return;
      read(i);
      std::vector<std::unique_ptr<Communicator::Transfer>> under_way;
      for (const int rank : others) under_way.push_back(group_->start_send(bytes_, rank));
      for (const auto& transfer : under_way) wait(*transfer, ranks);
    } else {
      bytes_.resize(static_cast<std::size_t>(blocks_[i].count * blocks_[i].element_bytes));
      wait(*group_->start_receive(bytes_, reader_of(i)), ranks);
    }
    if (mine(i)) fill(i);
    ranks.between();
  }

  static void wait(Communicator::Transfer& transfer, SideBySide& ranks) {
    using namespace std::chrono_literals;
    while (!transfer.done()) {
      std::this_thread::sleep_for(50us);
      ranks.between();
    }
  }

  void fill(std::size_t i) { filler_.fill(blocks_[i].piece->tensor, blocks_[i].first, bytes_); }

  void read(std::size_t i) {
    const auto& block = blocks_[i];
    if (!file_ || file_shard_ != block.shard) {
      file_.emplace(save_.sources[block.shard].file);
      file_shard_ = block.shard;
    }
    bytes_.resize(static_cast<std::size_t>(block.count * block.element_bytes));
    file_->read(*block.piece, block.first, block.element_bytes, bytes_);
    compare_digest(block);
  }

  // A piece's blocks come in order; one of which nobody needs some is compared with nothing.
  void compare_digest(const Block& block) {
    const auto& piece = *block.piece;
    if (block.first == piece.offset) {
      digest_ = Digest();
      digested_ = block.first;
    }
    if (digested_ != block.first) return;
    digest_.update(bytes_);
    digested_ += block.count;
    if (digested_ != piece.offset + piece.count || digest_.hex() == piece.digest) return;
    throw Error(ExitCode::bad_data,
                fmt::format("{}, elements [{}, {}), of {} does not match its digest any more: rank {} read it from {}",
                            piece.tensor, piece.offset, piece.offset + piece.count, save_.name, world_.rank(),
                            save_.sources[block.shard].file.string()));
  }

  const StoredSave& save_;
  Communicator& world_;
  std::unique_ptr<Communicator> group_;
  PieceFiller& filler_;
  const std::function<void()>& between_;
  std::vector<Block> blocks_;
  Needs needs_;
  std::vector<bool> in_step_;  // by block: all ranks need its piece
  std::vector<std::byte> bytes_;
  std::optional<LocalShardReader> file_;
  std::size_t file_shard_ = 0;
  Digest digest_;
  std::int64_t digested_ = 0;
};

}  // namespace

StoredSave shared_save(const std::filesystem::path& checkpoint, int ranks) {
  StoredSave save{.name = checkpoint.string(), .manifest = read_manifest(checkpoint), .sources = {}};
  for (const auto& shard : save.manifest.shards) {
    save.sources.push_back({static_cast<int>(save.sources.size()) % ranks, checkpoint / shard.file});
  }
  return save;
}

void load_together(const StoredSave& save, Communicator& world, Backend& backend, std::span<const Piece> pieces,
                   const LoadTogether& options) {
  PieceFiller filler(save.manifest, save.name, backend, pieces, options.weights_only);
  Distribution(save, world, filler, options).run();
}

}  // namespace smlp
