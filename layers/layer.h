// The contract of every layer. A layer is its parameters plus what its last forward saved; the Model owns it.
//
//  * Rows are tokens: x and y are [sequences · length, width]. Inputs and outputs belong to the caller.
//  * forward() may keep views of x, y and of scratch memory for its backward(); in evaluation mode it keeps
//    nothing and may give its scratch back.
//  * Each training forward() is followed by at most one backward(), before the arena is reset.
//  * dx is written (=), parameter gradients are accumulated (+=). Only ParameterStore::zero_grad() clears
//  them.
//  * A layer touches memory through c.backend alone and never asks for its rank.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "params/parameter_store.h"
#include "tensor/arena.h"
#include "tensor/backend.h"

namespace smlp {

enum class Mode : std::uint8_t { training, evaluation };

// What one sparse layer did with the tokens of this rank's micro-batch, for the worker to publish.
struct RoutingReport {
  std::int64_t block = 0;  // index in the stack, from 0
  // Tokens this rank sent to each expert; good until the next forward(). Empty: the device knows, in RoutingCounts::taken.
  std::span<const std::int64_t> expert_tokens{};
  Table* bias = nullptr;  // what the loads of a whole step move, where the router has it
  // Evaluation with Context::compare_routing: tokens that were also assigned as in training, and how many of them came to
  // the same experts.
  std::int64_t compared = 0, alike = 0;
};

// Memory of the device for what it alone knows of the routing of a training micro-batch, zeroed before: whoever takes
// reports reads it when he waits anyway. By index of the block in the stack; what a block does not have stays zero.
struct RoutingCounts {
  TensorView rounds{};   // i32 [blocks, groups] of each group's assignment; negative: the limit was met
  TensorView taken{};    // f64 [blocks, experts]
  TensorView dropped{};  // f64 [blocks, 1]: choices that found no place
};

// What a layer may touch while it runs. Passed down, never global. Whoever runs a model (the Engine, evaluation,
// generation) fills it anew for every batch.
struct Context {
  Backend& backend;
  Arena& scratch;
  Mode mode = Mode::training;
  std::int64_t sequences = 0,
               length = 0;          // B on this rank, T of this micro-batch (may be shorter than trained)
  TensorView tokens{};              // i32 [B · T]
  std::int64_t first_sequence = 0;  // place of my first sequence in the global batch: routers
  std::int64_t step = 0;
  std::uint64_t seed = 0;
  TensorView place{};  // i64 [StreamPlace::size]: the caller's memory for stand_at(); for dropout
  TensorView targets{};     // i32 [B · T], -1: not predicted; for the loss head
  TensorView loss_scale{};  // f64 [1]: what each predicted token's gradient is multiplied by
  // Auxiliary losses of routers (routing/auxiliary_loss.h), in training; both or neither. `auxiliary` f64 [routing
  // groups, 2], zeroed before the forward pass, holds after it what all layers added.
  TensorView auxiliary{};
  TensorView auxiliary_scale{};  // f64 [1]: 1 / tokens of the global batch, 0 for tokens that don't count
  std::vector<RoutingReport>* reports = nullptr;
  RoutingCounts counts{};  // with reports, or empty: nobody asks
  bool compare_routing = false;  // evaluation: reports tell how many tokens training would send elsewhere
  std::atomic<int>* block = nullptr;  // which block is at work, for reports of hangs: k forward, ~k backward

  // The step and my first sequence's place in the global batch, for the layers and in `place` for the device. length is set.
  void stand_at(std::int64_t this_step, std::int64_t first) {
    step = this_step;
    first_sequence = first;
    const std::array<std::int64_t, StreamPlace::size> values = {step, first_sequence * length};
    backend.upload(values.data(), place);
  }
  void at_block(int k) const noexcept {
    if (block != nullptr) block->store(k, std::memory_order_relaxed);
  }
  bool training() const noexcept { return mode == Mode::training; }
  std::int64_t rows() const noexcept { return sequences * length; }
};

class Layer {
 public:
  virtual ~Layer() = default;
  virtual void forward(Context& c, TensorView x, TensorView y) = 0;
  virtual void backward(Context& c, TensorView dy, TensorView dx) = 0;  // dx must not overlap dy
};

}  // namespace smlp
