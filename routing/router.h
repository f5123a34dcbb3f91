// Decides which token goes to which slot of which expert, and how much its answer counts. Never moves a
// token: the layer that owns the Router gathers, exchanges and combines by the RoutePlan.
#pragma once

#include <cstdint>
#include <optional>
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
  std::int64_t groups = 0;  // training: rows are cut into this many equal runs
  TensorView tokens{};      // i32 ids of the rows, for routers that look at nothing else
};

struct RoutePlan {
  TensorView token_of_slot{};                // i32 [slots], grouped by expert; -1: the slot is empty
  std::vector<std::int64_t> rows_of_expert;  // slots of each expert, empty ones included
  TensorView weight{};           // [slots], as x; 0 in empty ones; no view: every answer counts as it is
  TensorView rounds{};           // i32 [groups]: auction rounds; may be empty
  bool every_slot_used = false;  // no slot is empty and no token is without one

  std::int64_t slots() const noexcept { return token_of_slot.size(); }
};

class Router {
 public:
  virtual ~Router() = default;
  // The plan's views live in the scratch memory of the call; the router may keep x for its backward().
  virtual RoutePlan plan(RouteCall& call, TensorView x) = 0;
  // dx = residual + the gradient that reaches x through the plan's weights; parameter gradients add up.
  // dweight is as weight is, and empty where that is.
  virtual void backward(RouteCall& call, const RoutePlan& plan, TensorView dweight, TensorView residual,
                        TensorView dx) = 0;
  // Slots that every expert gets from a group of `tokens` tokens where that is known beforehand (training
  // with a fixed capacity); empty where only the plan knows.
  virtual std::optional<std::int64_t> slots_of_group(bool training, std::int64_t tokens) const = 0;
};

}  // namespace smlp
