// The learning rate of an update, as a function of how many were done before it.
#pragma once

#include <cstdint>
#include <string>

namespace smlp {

struct Schedule {
  std::string kind = "inverse_sqrt";  // "inverse_sqrt", "cosine", "constant"
  double learning_rate = 1e-3;        // at the end of the warm-up
  std::int64_t warmup_steps = 0;      // linear, from initial_rate
  double initial_rate = 0;
  double minimum_rate = 0;       // cosine: where it ends
  std::int64_t decay_steps = 0;  // cosine: when, warm-up included

  // `updates` already done: the first update uses rate(0). Throws Error(configuration) for an unknown kind.
  double rate(std::int64_t updates) const;
};

}  // namespace smlp
