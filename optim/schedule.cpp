#include "optim/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace smlp {

double Schedule::rate(std::int64_t updates) const {
  const auto done = static_cast<double>(updates), warmup = static_cast<double>(warmup_steps);
  if (updates < warmup_steps) return initial_rate + done * (learning_rate - initial_rate) / warmup;
  if (kind == "constant") return learning_rate;
  if (kind == "inverse_sqrt") {
    return learning_rate * std::sqrt(std::max(warmup, 1.0)) / std::sqrt(std::max(done, 1.0));
  }
  if (kind == "cosine") {
    const double span = std::max(static_cast<double>(decay_steps) - warmup, 1.0);
    const double progress = std::min((done - warmup) / span, 1.0);
    return minimum_rate + (learning_rate - minimum_rate) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  throw Error(ExitCode::configuration,
              fmt::format("schedule.kind = \"{}\" is none of inverse_sqrt, cosine, constant", kind));
}

}  // namespace smlp
