#include "optim/adamw.h"

#include <array>
#include <cmath>

#include "core/error.h"

namespace smlp {

AdamW::AdamW(Backend& backend, ParameterStore& store, const AdamWSettings& settings)
    : backend_(backend), store_(store), settings_(settings) {
  for (const auto& segment : store_.segments()) {
    const std::int64_t elements = segment.value.size();
    const DType type = segment.grad.dtype;
    State state{take(elements, type), take(elements, type), {}};
    if (segment.value.dtype != type) state.master = take(elements, type);
    states_.push_back(state);
  }
  control_ = take(StepControl::size, DType::f64);
  reset_masters();
}

AdamW::~AdamW() {
  for (void* block : blocks_) backend_.release(block);
}

TensorView AdamW::take(std::int64_t elements, DType type) {
  blocks_.push_back(backend_.allocate(elements * size_of(type)));
  const TensorView view(blocks_.back(), {elements}, type);
  backend_.fill(view, 0);
  bytes_ += view.bytes();
  return view;
}

void AdamW::reset_masters() {
  for (std::size_t s = 0; s < states_.size(); ++s) {
    if (states_[s].master) backend_.copy(store_.segments()[s].value, states_[s].master);
  }
}

void AdamW::values_from_masters() {
  for (std::size_t s = 0; s < states_.size(); ++s) {
    if (states_[s].master) backend_.copy(states_[s].master, store_.segments()[s].value);
  }
}

void AdamW::prepare(double learning_rate, double gradient_scale) {
  const auto n = static_cast<double>(updates_ + 1);
  std::array<double, StepControl::size> scalars{};
  scalars[StepControl::learning_rate] = learning_rate;
  scalars[StepControl::correction] =
      std::sqrt(1 - std::pow(settings_.beta2, n)) / (1 - std::pow(settings_.beta1, n));
  scalars[StepControl::gradient_scale] = gradient_scale;
  backend_.upload(scalars.data(), control_);
}

void AdamW::apply() {
  for (std::size_t s = 0; s < states_.size(); ++s) {
    const Segment& segment = store_.segments()[s];
    AdamWSettings settings = settings_;
    if (!segment.decay) settings.weight_decay = 0;
    backend_.adamw(settings, segment.value, states_[s].master, segment.grad, states_[s].m, states_[s].v,
                   control_);
  }
}

double AdamW::squared_norm() {
  std::array<double, StepControl::size> scalars{};
  backend_.download(control_, scalars.data());
  return scalars[StepControl::squared_norm];
}

bool AdamW::finish(double squared_norm) {
  const bool changed = std::isfinite(squared_norm);
  if (changed) ++updates_;
  return changed;
}

AdamW::State AdamW::state_of(const Parameter& parameter) const {
  expect(parameter.segment < states_.size(), "state_of: the parameter belongs to another store");
  const State& flat = states_[parameter.segment];
  const auto part = [&](const TensorView& view) {
    return view ? ParameterStore::part_of(view, parameter) : TensorView{};
  };
  return {part(flat.m), part(flat.v), part(flat.master)};
}

}  // namespace smlp
