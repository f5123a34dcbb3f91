// Follows metrics.jsonl as rank 0 appends to it: the newest step, and when each step since the newest checkpoint
// was seen, to tell what a restart costs. Lines of other attempts are passed over: a rank 0 that is cut off may train on, a
// slow disk may show them late.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>

#include "core/json_lines.h"

namespace smlp {

struct StepFacts {
  std::int64_t step = 0;
  std::optional<double> loss{}, validation_loss{}, tokens_per_second{}, flops_share{}, expert_balance{};
  std::optional<std::int64_t> checkpoint_step{};
  std::optional<double> checkpoint_time{};  // seconds since 1970
  std::optional<std::int64_t> local_step{};  // of the newest save on the nodes themselves
};

class MetricsTail {
 public:
  explicit MetricsTail(std::filesystem::path file);  // starts at its present end

  // Reads what is new; true when a step of the attempt was among it. `now`: monotonic.
  bool read(double now);
  void begin_attempt(int attempt, double now);

  const std::optional<StepFacts>& newest() const { return newest_; }  // of this attempt
  std::optional<std::int64_t> first_step() const { return first_step_; }
  // Seconds of work between a checkpoint and the newest step of this attempt.
  double seconds_since(std::int64_t checkpoint_step) const;

 private:
  void take(const nlohmann::json& line, double now);

  JsonTail file_;
  int attempt_ = 0;
  std::optional<StepFacts> newest_;
  std::optional<std::int64_t> first_step_;
  double began_ = 0;
  struct Seen {
    std::int64_t step;
    double at;
  };
  std::int64_t checkpoint_before_ = 0;  // the newest one: what diverges goes on from it
  std::deque<Seen> seen_;  // of this attempt, ascending; older ones than that are dropped
};

}  // namespace smlp
