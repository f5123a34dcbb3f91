// The node-local tier of a run's saves, as the loop sees it: each rank writes its shard into its node's own folder, all
// ranks hear once a step how far that is, then each sends its shard to its partner (worker/partners.h). Like
// Checkpointing, which has the shared directory; worker/saves.h has both. docs/decisions/0009.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>

#include "worker/checkpointing.h"
#include "worker/stopwatch.h"
#include "worker/shard_exchange.h"

namespace smlp {

class LocalTier {
 public:
  static constexpr std::size_t flag_count = 4;
  static constexpr std::size_t kept = 2;  // whole saves on each node

  // `options.root`: this node's folder of the run. `start`: the save that this attempt began from, if it was a local one.
  LocalTier(const WriterOptions& options, std::unique_ptr<Communicator> group, Partners partners,
            std::optional<SaveId> start, Checkpointing::Told told);

  void prepare(Backend& backend, std::span<const Piece> pieces) { writer_.prepare(backend, pieces); }
  bool idle() const { return phase_ == Phase::idle; }
  void begin(Backend& backend, std::span<const Piece> pieces, const RunState& state);  // when idle, on every rank
  double stall_seconds() const { return writer_.stall_seconds(); }

  // Once a step: mine into the flags, the sums of all ranks back. `copy_free` is called, alike on all ranks, when the
  // shards are written, or failed: the copy in memory may be taken over.
  void fill(std::span<double> flags);
  void agree(std::span<const double> sums, Communicator& world, const std::function<void(CheckpointWriter&)>& copy_free);
  void poll() { exchange_.poll(); }  // several times a step, so that copies travel
  std::optional<DiskWait> waits_for_disk() const;  // for the shard or the copies; from any thread

 private:
  enum class Phase { idle, writing, copying };
  void finish(bool whole, const std::string& failure);
  void sweep();  // by a thread; left to the next save while the one before is at it, or where there is none

  WriterOptions options_;
  Checkpointing::Told told_;
  CheckpointWriter writer_;
  ShardExchange exchange_;
  Phase phase_ = Phase::idle;
  SaveId save_;
  std::vector<SaveId> whole_;  // kept ones, oldest first
  Stopwatch since_begin_;
  std::atomic<bool> sweeping_ = false;
  std::jthread sweeper_;
};

}  // namespace smlp
