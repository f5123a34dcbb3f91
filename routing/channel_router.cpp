#include "routing/channel_router.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace smlp {

namespace {

// The part of sequence b that the router sees, [positions, channels].
TensorView sequence(const TensorView& x, std::int64_t b, std::int64_t positions) {
  return x.slice(b).row_range(0, positions);
}

}  // namespace

ChannelRouter::ChannelRouter(ParameterStore& store, const std::string& name, std::int64_t positions,
                             std::int64_t experts)
    : experts_(experts),
      weight_(store.add({.name = name + ".weight",
                         .shape = {positions, experts},
                         .initial = Initial::uniform(1 / std::sqrt(static_cast<double>(positions)))})) {}

ChannelPlan ChannelRouter::plan(Backend& backend, Arena& scratch, TensorView x) {
  const std::int64_t sequences = x.shape[0], channels = x.shape[2];
  const std::int64_t seen = std::min(x.shape[1], weight_.shape[0]);
  expect(channels % experts_ == 0, "the channels of a sequence cannot be shared out evenly to the experts");
  const DType wide = wide_type(x.dtype);
  seen_ = x;
  rows_of_expert_.assign(static_cast<std::size_t>(experts_), channels / experts_);
  scores_ = scratch.take({sequences, channels, experts_}, wide);
  const ChannelPlan plan{scratch.take({sequences, channels}, DType::i32),
                         scratch.take({sequences, channels}, x.dtype)};
  const Arena::Frame frame(scratch);
  const TensorView weight = wide == x.dtype ? plan.weight : scratch.take(plan.weight.shape, wide);
  const TensorView rounds = scratch.take({1}, DType::i32);
  for (std::int64_t b = 0; b < sequences; ++b) {
    const TensorView scores = scores_.slice(b), slots = plan.channel_of_slot.slice(b);
    backend.matmul({.a = sequence(x, b, seen),
                    .b = weight_.value.row_range(0, seen),
                    .out = scores,
                    .transpose_a = true});
    backend.assign_balanced(scores, 1, slots.reshaped({experts_, 1, channels / experts_}), rounds);
    backend.softmax_of_slots(scores, slots, rows_of_expert_, weight.slice(b));
  }
  if (wide != x.dtype && sequences > 0) backend.copy(weight, plan.weight);
  return plan;
}

void ChannelRouter::backward(Backend& backend, Arena& scratch, const ChannelPlan& plan, TensorView dweight,
                             TensorView dx) {
  const Arena::Frame frame(scratch);
  const std::int64_t seen = std::min(dx.shape[1], weight_.shape[0]);
  const Shape shape{dx.shape[2], experts_};
  const TensorView wide = scratch.take(shape, scores_.dtype);
  const TensorView dscores = scores_.dtype == dx.dtype ? wide : scratch.take(shape, dx.dtype);
  for (std::int64_t b = 0; b < dx.shape[0]; ++b) {
    backend.fill(wide, 0);
    backend.softmax_of_slots_backward(scores_.slice(b), dweight.slice(b), plan.channel_of_slot.slice(b),
                                      rows_of_expert_, wide);
    if (scores_.dtype != dx.dtype) backend.copy(wide, dscores);
    backend.matmul({.a = sequence(seen_, b, seen),
                    .b = dscores,
                    .out = weight_.grad.row_range(0, seen),
                    .accumulate = true});
    backend.matmul({.a = weight_.value.row_range(0, seen),
                    .b = dscores,
                    .out = sequence(dx, b, seen),
                    .transpose_b = true,
                    .accumulate = true});
  }
}

}  // namespace smlp
