// Which channel of a sequence goes to which expert, by what the channel holds at the first positions: logits V · W_r,
// V [channels, positions seen], assigned in balance apart for each sequence, in training and evaluation alike. An answer
// counts softmax(logits) of its expert. Logits and their gradients are f32 (f64 for f64).
#pragma once

#include <string>

#include "params/parameter_store.h"
#include "tensor/arena.h"

namespace smlp {

struct ChannelPlan {
  TensorView channel_of_slot{};  // i32 [sequences, channels]: slots in order of the experts, equally many each
  TensorView weight{};           // [sequences, channels], of the slots, as x
};

class ChannelRouter {
 public:
  ChannelRouter(ParameterStore& store, const std::string& name, std::int64_t positions, std::int64_t experts);

  // x [sequences, length, channels]: the first min(length, positions) positions are seen. The plan's views and what
  // backward() needs live in the scratch memory.
  ChannelPlan plan(Backend& backend, Arena& scratch, TensorView x);
  // dweight [sequences, channels] in f32 (f64 for f64). dx += at the positions seen; the parameter's gradient adds up.
  void backward(Backend& backend, Arena& scratch, const ChannelPlan& plan, TensorView dweight, TensorView dx);

 private:
  std::int64_t experts_;
  Parameter& weight_;  // [positions, experts]
  TensorView seen_, scores_;
  std::vector<std::int64_t> rows_of_expert_;
};

}  // namespace smlp
