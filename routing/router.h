// Decides which token goes to which slot of which expert, and how much its answer counts. Never moves a
// token: the layer that owns the Router gathers, exchanges and combines by the RoutePlan.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "params/parameter_store.h"
#include "tensor/arena.h"

namespace smlp {

// What a router may touch while it decides. Rows of this rank, in routing groups of equal length: tokens
// are assigned, and capacities counted, within a group, so the answer never depends on who shares the work.
struct RouteCall {
  Backend& backend;
  Arena& scratch;
  bool training = true;
  std::int64_t group_rows = 0;  // rows of a routing group; training: divides the rows; evaluation: the last may be shorter
  TensorView tokens{};          // i32 ids of the rows, for routers that look at nothing else
  // Noise is a function of these, of the router's name and of the place in the global batch: the same on any layout.
  std::uint64_t seed = 0;
  std::int64_t step = 0, first_row = 0;  // first_row: place of row 0 in the global batch
  // Training with auxiliary losses; both or neither. decide() adds to `auxiliary` what AuxiliaryLoss
  // (routing/auxiliary_loss.h) reads; at backward() it holds the sums over all layers of the micro-batch.
  TensorView auxiliary{};  // f64 [groups, 2]
  TensorView row_scale{};  // f64 [1]: what a row's share of the auxiliary losses is multiplied by
  // Memory of the caller's for what the plan tells of itself, zeroed before; where there is none, scratch memory is taken.
  TensorView rounds{}, taken{}, dropped{};  // as in RoutePlan

  std::int64_t groups(std::int64_t rows) const { return group_rows > 0 ? rows / group_rows : 0; }
};

struct RoutePlan {
  // i32 [slots], grouped by expert; -1: the slot is empty. A token may sit in two slots (of two experts: their answers
  // add up) or in none (dropped: the layer's answer for it is zero).
  TensorView token_of_slot{};
  std::vector<std::int64_t> rows_of_expert;  // slots of each expert, empty ones included
  TensorView weight{};         // [slots], as x; 0 in empty ones; no view: every answer counts as it is
  TensorView rounds{};         // i32 [groups]: auction rounds; negative: the limit was met; may be empty
  TensorView dropped{};        // f64 [1]: choices that found no place; empty: none
  TensorView taken{};          // f64 [experts]: choices that found one; empty: rows_of_expert or the slots tell
  bool no_empty_slot = false;  // rows_of_expert counts tokens
  Repeats repeats = Repeats::possible;  // of tokens, among slots

  std::int64_t slots() const noexcept { return token_of_slot.size(); }
  // As new, with no slot at any of so many experts; the host's memory is kept.
  void begin(std::int64_t experts) {
    std::vector<std::int64_t> kept = std::move(rows_of_expert);
    kept.assign(static_cast<std::size_t>(experts), 0);
    *this = {};
    rows_of_expert = std::move(kept);
  }
};

class Router {
 public:
  virtual ~Router() = default;
  // Writes the plan anew. Its views live in the scratch memory of the call; the router may keep x for its backward().
  virtual void decide(RouteCall& call, TensorView x, RoutePlan& plan) = 0;
  RoutePlan plan(RouteCall& call, TensorView x) {
    RoutePlan made;
    decide(call, x, made);
    return made;
  }
  // dx = residual (may be empty) + the gradient that reaches x through the plan's weights and the auxiliary losses;
  // parameter gradients add up. dweight is as weight is, in f32 (f64 for f64), and empty where that is. The call is as
  // decide()'s was.
  virtual void backward(RouteCall& call, const RoutePlan& plan, TensorView dweight, TensorView residual,
                        TensorView dx) = 0;
  // Slots that every expert gets from a group of `tokens` tokens where that is known beforehand (training
  // with a fixed capacity); empty where only the plan knows.
  virtual std::optional<std::int64_t> slots_of_group(bool training, std::int64_t tokens) const = 0;
  // What the step's loads of experts move, one number an expert (params/parameter_store.h: move_bias()); most have none.
  virtual Table* bias() { return nullptr; }
};

}  // namespace smlp
