#include "optim/adamw.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"

namespace smlp {

AdamW::AdamW(Backend& backend, ParameterStore& store, const AdamWSettings& settings, const std::vector<Share>& shares)
    : backend_(backend), store_(store), settings_(settings) {
  for (const Share& share : shares) {
    const Segment& segment = store_.segments().at(share.segment);
    const DType type = segment.grad.dtype;
    State state{take(share.count, type), take(share.count, type), {}};
    if (segment.value.dtype != type) state.master = take(share.count, type);
    parts_.push_back({share, state});
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
  for (const auto& [share, state] : parts_) {
    if (state.master) backend_.copy(share.of(store_.segments()[share.segment].value), state.master);
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
  for (const auto& [share, state] : parts_) {
    const Segment& segment = store_.segments()[share.segment];
    AdamWSettings settings = settings_;
    if (!segment.decay) settings.weight_decay = 0;
    backend_.adamw(settings, share.of(segment.value), state.master, share.of(segment.grad), state.m, state.v, control_);
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
  const std::int64_t begin = parameter.offset, end = begin + parameter.shape.size();
  State found;
  for (const auto& [share, state] : parts_) {
    if (share.segment != parameter.segment) continue;
    const std::int64_t first = std::max(begin, share.first);
    const std::int64_t count = std::max<std::int64_t>(0, std::min(end, share.first + share.count) - first);
    if (found.m && count == 0) continue;
    const std::int64_t at = count == 0 ? 0 : first - share.first;
    const auto part = [&](const TensorView& view) { return view ? view.row_range(at, count) : TensorView{}; };
    found = {part(state.m), part(state.v), part(state.master), count == 0 ? 0 : first - begin};
  }
  expect(static_cast<bool>(found.m), "state_of: the parameter belongs to another store");
  return found;
}

}  // namespace smlp
