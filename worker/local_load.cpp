// How a local save's pieces get to the ranks that need them. Every rank knows the manifest, who reads which shard, and
// who needs which piece, and goes through all pieces in the same order: what all need is broadcast, the rest goes from
// rank to rank, and who has nothing to do with a piece passes on to the next at once.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "checkpoint/digest.h"
#include "core/error.h"
#include "worker/local_restore.h"

namespace smlp {

namespace {

// needs[rank][piece] over all shards' pieces in order.
std::vector<std::vector<bool>> needs_of_all(const Manifest& manifest, const PieceFiller& filler, Communicator& world) {
  std::vector<std::byte> mine;
  for (const auto& shard : manifest.shards) {
    for (const auto& piece : shard.pieces) mine.push_back(filler.wants(piece) ? std::byte{1} : std::byte{0});
  }
  std::vector<std::byte> all;
  for (const auto& one : world.gather_bytes(mine, 0)) all.insert(all.end(), one.begin(), one.end());
  world.broadcast_bytes(all, 0);
  std::vector<std::vector<bool>> needs(static_cast<std::size_t>(world.size()));
  for (std::size_t i = 0; i < all.size(); ++i) needs[i / mine.size()].push_back(all[i] == std::byte{1});
  return needs;
}

class Distribution {
 public:
  Distribution(const LocalSource& source, const std::filesystem::path& folder, Communicator& world, PieceFiller& filler,
               const std::function<void()>& between, std::int64_t block_bytes)
      : source_(source),
        folder_(folder),
        world_(world),
        group_(world.split(0, world.rank())),
        filler_(filler),
        between_(between),
        block_bytes_(block_bytes),
        needs_(needs_of_all(source.manifest, filler, world)) {}

  void run() {
    std::size_t number = 0;
    for (std::size_t rank = 0; rank < source_.manifest.shards.size(); ++rank) {
      const auto& reader = source_.readers[rank];
      std::optional<LocalShardReader> file;
      if (reader.holder == world_.rank()) {
        file.emplace(local_files(folder_, source_.save, static_cast<int>(rank), reader.copy).shard);
      }
      for (const auto& piece : source_.manifest.shards[rank].pieces) pass(piece, number++, reader.holder, file);
    }
  }

 private:
  bool needs(int rank, std::size_t number) const { return needs_[static_cast<std::size_t>(rank)][number]; }

  void pass(const StoredPiece& piece, std::size_t number, int holder, const std::optional<LocalShardReader>& file) {
    std::vector<int> others;
    for (int rank = 0; rank < world_.size(); ++rank) {
      if (rank != holder && needs(rank, number)) others.push_back(rank);
    }
    const bool mine = needs(world_.rank(), number), reading = holder == world_.rank();
    const bool to_all = !others.empty() && static_cast<int>(others.size()) + 1 >= world_.size();
    if (!mine && !to_all && !(reading && !others.empty())) return;
    const auto element = size_of(source_.manifest.find(piece.tensor)->dtype), step = block_bytes_ / element;
    Digest digest;
    for (std::int64_t done = 0; done < piece.count; done += step) {
      const auto count = std::min(step, piece.count - done);
      block_.resize(static_cast<std::size_t>(count * element));
      if (reading) file->read(piece, piece.offset + done, element, block_);
      if (to_all) {
        world_.broadcast_bytes(block_, holder);
      } else if (reading) {
        send(others);
      } else {
        wait(*group_->start_receive(block_, holder));
      }
      digest.update(block_);
      if (mine) filler_.fill(piece, piece.offset + done, block_);
      between_();
    }
    if (digest.hex() == piece.digest) return;
    throw Error(ExitCode::io_failed,
                fmt::format("{}, elements [{}, {}), of the local save of step {} does not match its digest any more: rank {} "
                            "read it on its node",
                            piece.tensor, piece.offset, piece.offset + piece.count, source_.save.step, holder));
  }

  void send(const std::vector<int>& others) {
    std::vector<std::unique_ptr<Communicator::Transfer>> under_way;
    for (const int rank : others) under_way.push_back(group_->start_send(block_, rank));
    for (const auto& transfer : under_way) wait(*transfer);
  }

  static void wait(Communicator::Transfer& transfer) {
    using namespace std::chrono_literals;
    while (!transfer.done()) std::this_thread::sleep_for(50us);
  }

  const LocalSource& source_;
  const std::filesystem::path& folder_;
  Communicator& world_;
  std::unique_ptr<Communicator> group_;
  PieceFiller& filler_;
  const std::function<void()>& between_;
  std::int64_t block_bytes_;
  std::vector<std::vector<bool>> needs_;
  std::vector<std::byte> block_;
};

}  // namespace

void LocalStart::load(const LocalSource& source, Backend& backend, std::span<const Piece> pieces,
                      const std::function<void()>& between, std::int64_t block_bytes) {
  PieceFiller filler(source.manifest, fmt::format("the local save of step {}", source.save.step), backend, pieces);
  Distribution(source, folder_, world_, filler, between, block_bytes).run();
}

}  // namespace smlp
