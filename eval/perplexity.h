// Loss over a token file, window by window, the same on any number of ranks: every token but the first is predicted once, given
// at most `context` tokens before it (windows do not overlap; the last one may be shorter). Partial prediction leaves out the
// prefix of each window.
#pragma once

#include <cstdint>
#include <functional>

#include "comm/communicator.h"
#include "data/token_file.h"
#include "layers/model.h"

namespace smlp {

struct EvaluationPlan {
  std::int64_t context = 0;
  std::int64_t batch = 1;      // windows a rank takes at once
  std::int64_t windows = 0;    // how many at most, spread evenly over the file; 0: all
};

struct Evaluation {
  double loss_sum = 0;      // nats
  std::int64_t tokens = 0;  // predicted
  double loss() const;
  double perplexity() const;
  double bits_per_byte(double bytes) const;
};

// Collective over `world`. The arena is reset; `between` is called after every batch (heartbeat).
Evaluation evaluate(Model& model, Backend& backend, Arena& arena, Communicator& world, const TokenFile& file,
                    const EvaluationPlan& plan, const std::function<void()>& between = [] {});

}  // namespace smlp
