// Loss over a token file, window by window, the same on any number of ranks: every token but the first is predicted once, given
// at most `context` tokens before it (windows do not overlap; the last one may be shorter). Partial prediction leaves out the
// prefix of each window.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "data/token_file.h"
#include "layers/model.h"

namespace smlp {

struct EvaluationPlan {
  std::int64_t context = 0;
  std::int64_t batch = 1;      // windows a rank takes at once
  std::int64_t windows = 0;    // how many at most, spread evenly over the file; 0: all
  bool compare_routing = false;  // with training's: Evaluation::agreement
};

// Of one sparse block: tokens that training's way of assigning was tried on too, and how many came to the same experts.
struct RoutingAgreement {
  std::int64_t block = 0;
  double compared = 0, alike = 0;
  double share() const { return compared > 0 ? alike / compared : 1; }
  void add(const RoutingAgreement& other) {
    compared += other.compared;
    alike += other.alike;
  }
};

struct Evaluation {
  double loss_sum = 0;      // nats
  std::int64_t tokens = 0;  // predicted
  std::vector<RoutingAgreement> agreement;  // by block; empty where it was not asked for or nothing could be compared
  void add(const Evaluation& other);        // of another file
  double loss() const;
  double perplexity() const;
  std::optional<double> routing_agreement() const;  // share of all tokens compared, over all blocks
  std::optional<double> bits_per_byte(double bytes) const;  // of no bytes: none
};

// Collective over `world`. The arena is reset; `between` is called after every batch (heartbeat).
Evaluation evaluate(Model& model, Backend& backend, Arena& arena, Communicator& world, const TokenFile& file,
                    const EvaluationPlan& plan, const std::function<void()>& between = [] {});

}  // namespace smlp
