#include "optim/loss_scale.h"

#include <algorithm>

namespace smlp {

void LossScale::step_over(bool finite) {
  if (window_ == 0) return;
  clean_steps_ = finite ? clean_steps_ + 1 : 0;
  if (!finite) value_ = std::max(value_ / 2, least_);
  if (clean_steps_ < window_) return;
  value_ = std::min(value_ * 2, most_);
  clean_steps_ = 0;
}

void LossScale::restore(const State& state) {
  if (window_ == 0) return;
  value_ = std::clamp(state.value, least_, most_);
  clean_steps_ = state.clean_steps;
}

}  // namespace smlp
