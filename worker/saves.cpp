#include "worker/saves.h"

#include <chrono>
#include <thread>

namespace smlp {

void Saves::add_local(std::unique_ptr<LocalTier> local) {
  const std::scoped_lock lock(adding_);
  local_ = std::move(local);
}

std::optional<OwnWriting> Saves::own_writing() const {
  std::optional<OwnWriting> longest;
  const auto take = [&](Tier tier, const std::optional<DiskWait>& wait) {
    if (wait && (!longest || wait->seconds > longest->seconds)) longest = OwnWriting{tier, wait->step, wait->seconds};
  };
  take(Tier::shared, shared_.waits_for_disk());
  const std::scoped_lock lock(adding_);
  if (local_) take(Tier::local, local_->waits_for_disk());
  return longest;
}

void Saves::prepare(Backend& backend, std::span<const Piece> pieces) {
  shared_.prepare(backend, pieces);
  if (local_) local_->prepare(backend, pieces);
}

double Saves::begin(Wish wish, Backend& backend, std::span<const Piece> pieces, const RunState& state) {
  if (wish.local) {
    if (wish.shared) shared_.begin_later(state.integer("step"));
    local_->begin(backend, pieces, state);
    return local_->stall_seconds();
  }
  shared_.begin(backend, pieces, state);
  return shared_.stall_seconds();
}

void Saves::fill(std::span<double> flags) {
  shared_.fill(flags.first(Checkpointing::flag_count));
  if (local_) local_->fill(flags.subspan(Checkpointing::flag_count, LocalTier::flag_count));
}

void Saves::agree(std::span<const double> sums, Communicator& world) {
  shared_.agree(sums.first(Checkpointing::flag_count), world);
  if (!local_) return;
  local_->agree(sums.subspan(Checkpointing::flag_count, LocalTier::flag_count), world, [this](CheckpointWriter& writer) {
    if (shared_.waiting()) shared_.take_over(writer);
  });
}

void Saves::poll() {
  if (local_) local_->poll();
}

void Saves::drain(Communicator& world) {
  drain(world, [this] { return shared_.idle() && (!local_ || local_->idle()); });
}

void Saves::drain_local(Communicator& world) {
  drain(world, [this] { return !local_ || local_->idle(); });
}

void Saves::drain(Communicator& world, const std::function<bool()>& done) {
  using namespace std::chrono_literals;
  std::array<double, flag_count> flags{};
  while (!done()) {
    fill(flags);
    world.all_reduce_host(flags, Reduce::sum);
    agree(flags, world);
    if (!done()) std::this_thread::sleep_for(2ms);
  }
}

}  // namespace smlp
