#include "worker/step_tally.h"

namespace smlp {

namespace {

// f64 that hold a micro-batch's rounds, which are i32.
std::int64_t room_of_rounds(const StepTally::Sizes& sizes) { return (sizes.blocks * sizes.groups + 1) / 2; }

}  // namespace

StepTally::StepTally(Backend& backend, const Sizes& sizes)
    : backend_(backend),
      sizes_(sizes),
      of_micro_batch_(2 * sizes.groups + sizes.blocks * (1 + sizes.experts) + room_of_rounds(sizes)),
      host_(static_cast<std::size_t>(1 + sizes.micro_batches * of_micro_batch_)) {
  const auto size = std::ssize(host_);
  all_ = TensorView(backend.allocate(size * size_of(DType::f64)), {size}, DType::f64);
}

StepTally::~StepTally() { backend_.release(all_.data); }

void StepTally::clear() { backend_.fill(all_, 0); }

void StepTally::read() { backend_.download(all_, host_.data()); }

TensorView StepTally::part(std::int64_t first, Shape shape, DType type) const { return {all_.at(first), shape, type}; }

TensorView StepTally::loss() const { return part(0, {1}, DType::f64); }

TensorView StepTally::auxiliary(std::int64_t micro_batch) const {
  return part(1 + micro_batch * of_micro_batch_, {sizes_.groups, 2}, DType::f64);
}

RoutingCounts StepTally::counts(std::int64_t micro_batch) const {
  if (sizes_.blocks == 0) return {};
  const std::int64_t dropped = 1 + micro_batch * of_micro_batch_ + 2 * sizes_.groups;
  const std::int64_t taken = dropped + sizes_.blocks, rounds = taken + sizes_.blocks * sizes_.experts;
  return {.rounds = part(rounds, {sizes_.blocks, sizes_.groups}, DType::i32),
          .taken = part(taken, {sizes_.blocks, sizes_.experts}, DType::f64),
          .dropped = part(dropped, {sizes_.blocks, 1}, DType::f64)};
}

}  // namespace smlp
