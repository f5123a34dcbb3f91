// The loop's side of a checkpoint: all ranks begin at the same step, ask each other once a step how far the
// shards are, and agree that it is published or failed (docs/architecture.md, the life of one checkpoint).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "checkpoint/checkpoint.h"
#include "comm/communicator.h"
#include "worker/stopwatch.h"

namespace smlp {

enum class Tier : std::uint8_t { shared, local };
inline constexpr std::size_t tier_count = 2;
inline const char* name_of(Tier tier) { return tier == Tier::local ? "local" : "shared"; }

// What became of a save, told once on every rank; bytes are this rank's.
struct SaveOutcome {
  Tier tier = Tier::shared;
  std::int64_t step = 0;
  bool published = false;
  std::string failure{};  // why not, by the first rank that failed; the same on all ranks
  std::string note{};     // on rank 0: what went wrong after it was published
  bool superseded = false;  // on rank 0: it was not published because a newer attempt has taken over the run
  double seconds = 0;     // since it was begun
  std::int64_t bytes = 0;
};

// This rank's own part of a save, while the disk owes it an answer. What other ranks still write is none of it.
struct OwnWriting {
  Tier tier = Tier::shared;
  std::int64_t step = 0;
  double seconds = 0;  // since the disk answered last
};

class Checkpointing {
 public:
  static constexpr std::size_t flag_count = 3;
  using Told = std::function<void(const SaveOutcome&)>;

  Checkpointing(const WriterOptions& options, Told told)
      : writer_(options), root_(options.rank == 0), ranks_(options.ranks), told_(std::move(told)) {}

  void prepare(Backend& backend, std::span<const Piece> pieces) { writer_.prepare(backend, pieces); }
  bool idle() const { return phase_ == Phase::idle; }
  bool waiting() const { return phase_ == Phase::waiting; }
  void begin(Backend& backend, std::span<const Piece> pieces, const RunState& state);  // when idle, on every rank
  // Instead: a save whose copy another writer makes and uses first, and what it made, when it is free.
  void begin_later(std::int64_t step);
  void take_over(CheckpointWriter& other);
  double stall_seconds() const { return writer_.stall_seconds(); }

  // Once a step: mine into the flags, the sums of all ranks back. Where one has failed, all hear why.
  void fill(std::span<double> flags) const;
  void agree(std::span<const double> sums, Communicator& world);
  bool last_failed() const { return last_failed_; }
  std::optional<DiskWait> waits_for_disk() const { return writer_.waits_for_disk(); }  // from any thread

 private:
  enum class Phase { idle, waiting, writing, publishing };
  void finish(bool published, const std::string& failure = "");

  CheckpointWriter writer_;
  bool root_;
  int ranks_;
  Told told_;
  Phase phase_ = Phase::idle;
  std::int64_t step_ = -1;
  bool last_failed_ = false;
  Stopwatch since_begin_;
};

}  // namespace smlp
