#include "worker/local_tier.h"

#include "core/error.h"
#include "worker/texts.h"

namespace smlp {

namespace {
enum Flag : std::size_t { written, failed, copied, copy_failed };
}

LocalTier::LocalTier(const WriterOptions& options, std::unique_ptr<Communicator> group, Partners partners,
                     std::optional<SaveId> start, Checkpointing::Told told)
    : options_(options),
      told_(std::move(told)),
      writer_(options),
      exchange_(std::move(group), std::move(partners), options.root) {
  if (start) whole_.push_back(*start);
}

void LocalTier::begin(Backend& backend, std::span<const Piece> pieces, const RunState& state) {
  expect(idle(), "a local save was begun while another one is under way");
  save_ = {state.integer("step"), options_.attempt};
  phase_ = Phase::writing;
  since_begin_ = {};
  writer_.begin(backend, pieces, state);
}

void LocalTier::fill(std::span<double> flags) {
  using State = CheckpointWriter::State;
  exchange_.poll();
  const auto state = writer_.state();
  const bool over = phase_ == Phase::copying && exchange_.done();
  flags[written] = state == State::written ? 1 : 0;
  flags[failed] = state == State::failed ? 1 : 0;
  flags[copied] = over ? 1 : 0;
  flags[copy_failed] = over && !exchange_.failure().empty() ? 1 : 0;
}

void LocalTier::agree(std::span<const double> sums, Communicator& world,
                      const std::function<void(CheckpointWriter&)>& copy_free) {
  if (phase_ == Phase::writing && sums[failed] > 0) {
    const auto failure = first_text(world, writer_.failure());
    copy_free(writer_);
    finish(false, failure);
  } else if (phase_ == Phase::writing && sums[written] == options_.ranks) {
    copy_free(writer_);
    phase_ = Phase::copying;
    exchange_.begin(save_);
    exchange_.poll();
  } else if (phase_ == Phase::copying && sums[copied] == options_.ranks) {
    const bool whole = sums[copy_failed] == 0;
    const auto failure = whole ? "" : first_text(world, exchange_.failure());
    if (!whole) exchange_.discard();
    finish(whole, failure);
  }
}

std::optional<DiskWait> LocalTier::waits_for_disk() const {
  const auto shard = writer_.waits_for_disk(), copy = exchange_.waits_for_disk();
  return shard && (!copy || shard->seconds > copy->seconds) ? shard : copy;
}

void LocalTier::finish(bool whole, const std::string& failure) {
  const SaveOutcome outcome{.tier = Tier::local, .step = save_.step, .published = whole, .failure = failure,
                            .seconds = since_begin_.seconds(), .bytes = writer_.written_bytes()};
  phase_ = Phase::idle;
  if (whole) {
    writer_.publish();
    whole_.push_back(save_);
    if (whole_.size() > kept) whole_.erase(whole_.begin());
    sweep();
  }
  writer_.release();
  told_(outcome);
}

void LocalTier::sweep() {
  if (sweeping_.exchange(true)) return;
  try {
    sweeper_ = std::jthread([this, keep = whole_] {
      keep_local(options_.root, keep, keep.back().step);
      sweeping_ = false;
    });
  } catch (const std::system_error&) {  // the host has no thread left
    sweeping_ = false;
  }
}

}  // namespace smlp
