#include "worker/checkpointing.h"

#include "core/error.h"
#include "worker/texts.h"

namespace smlp {

namespace {
enum Flag : std::size_t { written, failed, published };
}

void Checkpointing::begin(Backend& backend, std::span<const Piece> pieces, const RunState& state) {
  expect(idle(), "a checkpoint was begun while another one is being written");
  step_ = state.integer("step");
  since_begin_ = {};
  phase_ = Phase::writing;
  writer_.begin(backend, pieces, state);
}

void Checkpointing::begin_later(std::int64_t step) {
  expect(idle(), "a checkpoint was begun while another one is being written");
  step_ = step;
  since_begin_ = {};
  phase_ = Phase::waiting;
}

void Checkpointing::take_over(CheckpointWriter& other) {
  expect(phase_ == Phase::waiting, "nothing waits for this copy");
  phase_ = Phase::writing;
  writer_.take_over(other);
}

void Checkpointing::fill(std::span<double> flags) const {
  const auto state = writer_.state();
  using State = CheckpointWriter::State;
  flags[written] = state == State::written ? 1 : 0;
  flags[failed] = state == State::failed ? 1 : 0;
  flags[published] = state == State::published ? 1 : 0;
}

void Checkpointing::agree(std::span<const double> sums, Communicator& world) {
  if (phase_ == Phase::idle) return;
  if (sums[failed] > 0) {
    finish(false, first_text(world, writer_.failure()));
  } else if (phase_ == Phase::writing && sums[written] == ranks_) {
    phase_ = Phase::publishing;
    if (root_) writer_.publish();
  } else if (phase_ == Phase::publishing && sums[published] > 0) {
    finish(true);
  }
}

void Checkpointing::finish(bool was_published, const std::string& failure) {
  const SaveOutcome outcome{.tier = Tier::shared, .step = step_, .published = was_published, .failure = failure,
                      .note = was_published ? writer_.note() : "",
                      .superseded = !was_published && writer_.superseded(), .seconds = since_begin_.seconds(),
                      .bytes = writer_.written_bytes()};
  writer_.release();
  phase_ = Phase::idle;
  last_failed_ = !was_published;
  told_(outcome);
}

}  // namespace smlp
