// What the loss is multiplied by before the backward pass, so that f16 gradients neither vanish nor overflow, and what
// they are divided by again in the update. Owned by the engine; every rank does the same to it. Other precisions: 1.
// Dynamic loss scaling as in Micikevicius et al., Mixed Precision Training, 2018, §3.2 and NVIDIA's guide to it: halved after
// an overflow, whose step changes nothing, doubled after `window` steps in a row without one.
#pragma once

#include <algorithm>
#include <cstdint>

namespace smlp {

class LossScale {
 public:
  static constexpr double least = 1, most = 16777216;  // 2^24

  LossScale() = default;  // 1, for good
  // window 0: `first`, for good. Otherwise it stays within these bounds, or as far beyond as it began.
  LossScale(double first, std::int64_t window)
      : value_(first), least_(std::min(first, least)), most_(std::max(first, most)), window_(window) {}

  double value() const { return value_; }
  bool can_fall() const { return window_ > 0 && value_ > least_; }
  void step_over(bool finite);  // the gradient of the step

  struct State {
    double value = 1;
    std::int64_t clean_steps = 0;
  };
  State state() const { return {value_, clean_steps_}; }
  void restore(const State& state);  // a fixed one stays as the job has it

 private:
  double value_ = 1, least_ = least, most_ = most;
  std::int64_t window_ = 0, clean_steps_ = 0;
};

}  // namespace smlp
