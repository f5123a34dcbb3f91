// Seconds between saves, chosen from what they cost and how often the run fails (checkpoint.auto):
//   sqrt(2 x cost of a save x mean time between failures)
// J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 17(9), 1974; J. T. Daly, A higher
// order estimate of the optimum checkpoint interval for restart dumps, FGCS 22(3), 2006, whose further terms matter only
// where a save costs more than a tenth of the time between failures. The cost is what a save keeps the loop from: the
// stall for its copy, and how much longer than undisturbed ones the steps take while it is written and sent. Each tier
// has its own. Plain values; rank 0's decide, and go to all ranks with its wish to save.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/run_directory.h"
#include "worker/checkpointing.h"

namespace smlp {

double best_interval(double cost_seconds, double seconds_between_failures);

// How often a run fails, from attempts.jsonl. As long as little is known, as if one failure in a day had been seen
// before it began.
struct FailureRate {
  double seconds_up = 0;
  std::int64_t failures = 0;
  static constexpr double assumed_seconds = 24 * 3600;
  double seconds_between() const;
};
// Attempts that ended without having been asked to, and might end so again.
std::int64_t count_failures(const RunDirectory& run);

class SaveIntervals {
 public:
  SaveIntervals(double least_seconds, double most_seconds) : least_(least_seconds), most_(most_seconds) {}

  void recall(const std::string& text);  // of text(), by an earlier attempt; what can't be read is not known
  std::string text() const;              // JSON

  void begun(Tier tier, double stall_seconds);
  // A step took so long, stalls left out.
  void step(double seconds);
  void over(Tier tier);  // published or failed

  // From what is known now; the tiers whose interval has moved by a tenth since that was last said here.
  std::vector<Tier> choose(const FailureRate& rate);
  double seconds(Tier tier) const { return of(tier).interval; }
  std::string sentence(Tier tier, const FailureRate& rate) const;

 private:
  static constexpr std::size_t window = 8, baseline_window = 64, enough = 8;
  struct OfTier {
    std::vector<double> costs, durations;  // of the last saves
    std::optional<double> recalled_cost, recalled_duration;
    bool under_way = false;
    double stall = 0, excess = 0, duration = 0;  // of the one under way
    double interval = 0, said = 0;               // 0: not chosen yet
    std::optional<double> cost() const;
    std::optional<double> save_seconds() const;
  };
  OfTier& of(Tier tier) { return tiers_[static_cast<std::size_t>(tier)]; }
  const OfTier& of(Tier tier) const { return tiers_[static_cast<std::size_t>(tier)]; }

  double least_, most_;
  std::vector<double> undisturbed_;  // seconds of the last steps without a save
  std::array<OfTier, tier_count> tiers_;
};

}  // namespace smlp
