// What a run's seconds went to since its first start, through restarts, requeues and pauses. Every moment up to `time`
// is in one phase, so that they add up to the wall time; no phase ever shrinks.
//   productive        steps done for the first time, evaluation included, less what follows
//   restart           from the end of an attempt to the first new step: pause, start, loading; the first start too
//   checkpoint_stall  training waited for a save's copy, for the save before to end, or at the end for the last one
//   data_stall        training waited for tokens
//   exchange_wait     in collectives: token exchange and gradient sums
//   lost_work         steps done again, and what an attempt that died did after its last step, hanging included
//   waiting           no launcher was there: in the queue, preempted, or stopped
// Rank 0 keeps the book while it trains and writes its state into each line of metrics.jsonl; the launcher adds what
// lies around attempts and writes a line of ledger.jsonl for each. The newest line of either is the truth: both hold
// totals, so that a lost line costs nothing but detail, and nobody ever reads a whole file of steps.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "core/run_directory.h"

namespace smlp {

enum class Spent : std::size_t { productive, restart, checkpoint_stall, data_stall, exchange_wait, lost_work, waiting };
inline constexpr std::size_t spent_count = 7;
inline constexpr std::array<const char*, spent_count> spent_names = {
    "productive", "restart", "checkpoint_stall", "data_stall", "exchange_wait", "lost_work", "waiting"};

// What a step says of its own seconds.
struct StepSeconds {
  double whole = 0, data = 0, exchange = 0, checkpoint = 0;
  double evaluation = 0;  // behind it, and not in `whole`
};

class Goodput {
 public:
  Goodput() = default;
  explicit Goodput(double now) : time_(now) {}  // nothing spent yet; seconds since 1970

  // Everything since the last call goes to one phase. A clock that went back counts as none at all.
  void pass(double now, Spent phase);
  // The same for the time up to the end of a step. `first`: of this attempt, so that what came before it is `restart`.
  void step_done(double now, std::int64_t step, const StepSeconds& took, bool first);

  void go_on_from(double now) { time_ = now; }  // where another clock, that was wrong, kept the book

  double operator[](Spent phase) const { return seconds_[static_cast<std::size_t>(phase)]; }
  double total() const;
  double time() const { return time_; }
  std::int64_t highest_step() const { return highest_step_; }  // ever done

  nlohmann::json seconds_json() const;  // {"productive": 1.5, …}, in thousandths: to look at
  // Keys of a line of metrics.jsonl or ledger.jsonl: goodput_seconds_total, highest_step; `time` is the line's own.
  void write_into(nlohmann::json& line) const;
  static std::optional<Goodput> from_line(const nlohmann::json& line);

 private:
  double time_ = 0;
  std::int64_t highest_step_ = 0;
  std::array<double, spent_count> seconds_{};
};

// The newest there is. One whose time is more than five minutes to come goes on from now.
std::optional<Goodput> read_goodput(const RunDirectory& run);

}  // namespace smlp
