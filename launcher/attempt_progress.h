// Which attempts of a run bring it on: those that save what no attempt before them had saved. Owned by the supervisor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace smlp {

// What a rewind gave up is new when it is published again; but of an attempt that ends in a rewind itself only what none
// before it had is, or a loss that diverges at the same step each time would have no end. What was lost with the nodes that
// held it is new again, too, but not to the attempt that begins further back for it: nodes that fail at the same step each
// time would have no end.
class AttemptProgress {
 public:
  AttemptProgress() = default;
  explicit AttemptProgress(std::optional<std::int64_t> newest) : best_(newest), furthest_(newest) {}

  // Whether an attempt brought the run on that leaves this newest save. `begun_at`: the step of the checkpoint that it began
  // with, 0 for the first step; none: it never came so far.
  bool of_attempt(std::optional<std::int64_t> begun_at, std::optional<std::int64_t> newest, bool ends_in_rewind) {
    const bool made = newest > (ends_in_rewind ? furthest_ : best_);
    if (begun_at && !ends_in_rewind) best_ = std::min(best_, begun_at);
    best_ = std::max(best_, newest);
    furthest_ = std::max(furthest_, newest);
    return made;
  }
  void rewind_to(std::optional<std::int64_t> step) {
    if (step) best_ = std::min(best_, step);
  }

 private:
  std::optional<std::int64_t> best_, furthest_;  // saved: of what is not given up, and of all
};

}  // namespace smlp
