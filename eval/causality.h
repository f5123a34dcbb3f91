// Does a position see tokens that come after it? Tokens after a position are changed and the logits at and before it are
// watched, in evaluation mode: of a causal model none of them moves but for rounding, which float64 keeps tiny.
#pragma once

#include <cstdint>
#include <optional>

#include "layers/model.h"

namespace smlp {

struct CausalityPlan {
  std::int64_t context = 0, vocabulary = 0;
  std::int64_t first_position = 0;  // positions before it predict nothing, and are not judged
  std::int64_t tries = 32;          // positions tried at most, drawn by `seed`; every one where there are no more
  std::uint64_t seed = 1;
  double bound = 1e-12;  // a logit that moves further has seen what changed
};

struct Leak {
  std::int64_t position = 0;  // sees a token after…
  std::int64_t after = 0;     // …this one
  std::int64_t logit = 0;     // the one that moved furthest there
  double moved = 0;
};

struct CausalityReport {
  std::int64_t tried = 0;             // positions whose later tokens were changed
  std::int64_t watched = 0;           // positions whose logits were compared
  std::int64_t leaking = 0;           // of those
  std::optional<Leak> first;          // of the earliest position that leaks
  double largest_move = 0;            // of any logit that must not move
  double largest_move_elsewhere = 0;  // of a logit of another sequence of the batch: no leak, but dependence
  bool causal() const { return !first; }
};

// Random tokens, two sequences, the later one changed. The model's values are f64, on one rank. Throws
// Error(configuration) where the context leaves nothing to look at.
CausalityReport check_causality(Model& model, Backend& backend, Arena& arena, const CausalityPlan& plan);

}  // namespace smlp
