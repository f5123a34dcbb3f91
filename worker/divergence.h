// What a run does when its numbers go wrong; asked once a step, between the agreement of all ranks and the update, so
// that all decide alike and no weight has changed.
//   gradients not finite   no update; after `nonfinite_in_row` of them the attempt ends with 76
//   a spike of the loss    by divergence.spike_policy: no update (skip); back to a checkpoint before it and past the
//                          data that led to it (rewind); the end of the run (stop)
// A spike is a loss whose distance to the median of the last ones, in robust deviations, is above spike_zscore. Median
// and median absolute deviation stand up to the outliers that they are to find, which mean and variance do not: one
// spike of ten deviations in a window of 64 would hide the next. The deviation counts as 1 % of the median at least, so
// that a loss which hardly moves is not judged by its noise. A spike does not enter the window.
// What it remembers is part of the run state: a run that goes on judges as one that never stopped.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/attempt_end.h"
#include "core/job_config.h"
#include "core/verdict.h"
#include "worker/passed_over.h"

namespace smlp {

class LossWindow {
 public:
  explicit LossWindow(std::size_t size) : size_(size) {}
  std::optional<double> zscore(double loss) const;  // none until half of the window is there
  double median() const;
  void add(double loss);
  const std::deque<double>& losses() const { return losses_; }

 private:
  std::size_t size_;
  std::deque<double> losses_;  // oldest first
};

class Divergence {
 public:
  static constexpr std::int64_t budget_steps = 1000;
  enum class Action : std::uint8_t { update, nonfinite, skip, rewind, stop };
  struct Counts {
    std::int64_t nonfinite = 0, overflowed = 0, skipped = 0, rewound = 0;  // over the whole run
  };

  // `past`: of RUN/passed_over.json, the same on all ranks.
  Divergence(const JobConfig& job, PassedOver past);

  void put(RunState& state) const;
  void restore(const RunState& state);  // keys that an older run lacks are left alone

  // Where in the run's order the step at `position` takes its data, and how many sequences before it were trained on.
  std::int64_t data_of(std::int64_t position) const { return passed_.next(position, global_batch_); }
  std::int64_t trained(std::int64_t position) const { return position - passed_.before(position); }

  // The same on all ranks. After rewind, stop and the last nonfinite: ended(). After rewind and stop alone: verdict(), for
  // how far to go back after gradients that are not finite the launcher knows.
  Action judge(std::int64_t step, std::int64_t position, double loss, double gradient_norm);
  Action overflow(double loss_scale);  // of an fp16 gradient: what the loss scale is for, no sign that the run goes astray
  const std::string& sentence() const { return sentence_; }  // of the last action but update
  bool ended() const { return ended_; }
  std::int64_t nonfinite_steps() const { return in_row_; }  // in a row, up to the last step
  const std::optional<Verdict>& verdict() const { return verdict_; }
  const PassedOver& passed_over() const { return passed_; }  // after a rewind: with what is to be left out
  Counts counts() const;

 private:
  Action not_finite();
  Action spike(std::int64_t step, std::int64_t position, double loss, double zscore);

  JobConfig::Divergence settings_;
  std::int64_t global_batch_;
  PassedOver passed_;
  LossWindow window_;
  std::vector<std::int64_t> skips_;  // steps of the spikes that were skipped, those within budget_steps
  std::int64_t in_row_ = 0, nonfinite_ = 0, overflowed_ = 0, skipped_ = 0;
  std::string sentence_;
  std::optional<Verdict> verdict_;
  bool ended_ = false;
};
const char* name_of(Divergence::Action action);

}  // namespace smlp
