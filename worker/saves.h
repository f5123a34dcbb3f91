// Both tiers of a run's saves: the shared directory's, and the nodes' own where the job asks for it. A step that is due
// for both is copied once: the local tier writes first, then the shared one takes over its copy, whether that went well
// or not.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "worker/checkpointing.h"
#include "worker/local_tier.h"

namespace smlp {

class Saves {
 public:
  static constexpr std::size_t flag_count = Checkpointing::flag_count + LocalTier::flag_count;

  Saves(const WriterOptions& shared, Checkpointing::Told told) : shared_(shared, std::move(told)) {}
  void add_local(std::unique_ptr<LocalTier> local);

  const Checkpointing& shared() const { return shared_; }
  // From any thread: that of the longer wait for the disk; nullopt: this rank has nothing to write.
  std::optional<OwnWriting> own_writing() const;
  bool idle(Tier tier) const { return tier == Tier::shared ? shared_.idle() : local_ != nullptr && local_->idle(); }

  // Before the first save: the memory for its copy.
  void prepare(Backend& backend, std::span<const Piece> pieces);

  // When the tiers asked for are idle, on every rank. Returns the seconds that the loop waited for the copy.
  struct Wish {
    bool shared = false, local = false;
    explicit operator bool() const { return shared || local; }
  };
  double begin(Wish wish, Backend& backend, std::span<const Piece> pieces, const RunState& state);

  // Once a step: mine into the flags, the sums of all ranks back.
  void fill(std::span<double> flags);
  void agree(std::span<const double> sums, Communicator& world);
  void poll();  // several times a step
  // Until nothing is under way; every rank calls it.
  void drain(Communicator& world);
  // The same for the local tier alone, whose messages must come to their end.
  void drain_local(Communicator& world);

 private:
  void drain(Communicator& world, const std::function<bool()>& done);

  Checkpointing shared_;
  mutable std::mutex adding_;  // own_writing() may come before add_local()
  std::unique_ptr<LocalTier> local_;
};

}  // namespace smlp
