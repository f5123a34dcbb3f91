#include "optim/gradient_sync.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"

namespace smlp {

namespace {

constexpr std::int64_t bucket_bytes = std::int64_t{4} << 20;

// 0: before the stack (the embedding), k + 1: blocks.k, blocks + 1: behind it (the head).
std::size_t stage_of(const Parameter& parameter, bool stack_begun, int blocks) {
  constexpr std::string_view prefix = "blocks.";
  const std::string& name = parameter.name;
  if (name.starts_with(prefix)) {
    int k = -1;
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), k);
    expect(k >= 0 && k < blocks, fmt::format("parameter '{}' belongs to no block of the stack", name));
    return static_cast<std::size_t>(k) + 1;
  }
  return stack_begun ? static_cast<std::size_t>(blocks) + 1 : 0;
}

}  // namespace

GradientSync::GradientSync(Backend& backend, ParameterStore& store, ProcessGrid& grid, int blocks)
    : backend_(backend), store_(store), grid_(grid) {
  const std::size_t segments = store_.segments().size();
  runs_of_stage_.assign(static_cast<std::size_t>(blocks) + 2, std::vector<Run>(segments));
  pending_.resize(segments);
  summed_.assign(segments, 0);
  std::vector<std::pair<std::size_t, std::int64_t>> last(segments, {0, 0});  // stage, end of its run
  bool stack_begun = false;
  for (const auto& parameter : store_.parameters()) {
    const std::size_t stage = stage_of(parameter, stack_begun, blocks);
    stack_begun = stack_begun || stage > 0;
    auto& [previous, end] = last[parameter.segment];
    expect(stage >= previous, "parameters were not added in the order of the stack");
    Run& run = runs_of_stage_[stage][parameter.segment];
    if (run.first == run.last) run.first = end;  // padding goes with what follows it
    end = run.last = parameter.offset + parameter.shape.size();
    previous = stage;
  }
  norms_ = TensorView(backend_.allocate(2 * size_of(DType::f64)), {2}, DType::f64);
  own_norm_ = TensorView(backend_.allocate(size_of(DType::f64)), {1}, DType::f64);
}

GradientSync::~GradientSync() {
  backend_.release(norms_.data);
  backend_.release(own_norm_.data);
}

bool GradientSync::own_finite() const {
  double norm = 0;
  if (own_known_) backend_.download(own_norm_, &norm);
  return std::isfinite(norm);
}

Communicator& GradientSync::sharers(const Segment& segment) {
  return segment.placement == Placement::replicated ? *grid_.world : *grid_.replicas;
}

void GradientSync::reduce(std::size_t segment) {
  Run& run = pending_[segment];
  const std::int64_t count = run.last - run.first;
  if (count > 0) {
    const auto grad = store_.segments()[segment].grad.row_range(run.first, count);
    if (watched_) {
      if (!own_known_) backend_.fill(own_norm_, 0);
      own_known_ = true;
      backend_.sum_of_squares(grad, own_norm_);
    }
    Communicator& ranks = sharers(store_.segments()[segment]);
    if (ranks.size() > 1) {
      ranks.after(backend_);
      ranks.all_reduce(grad, Reduce::sum);
    }
    summed_[segment] += count;
  }
  run = {};
}

void GradientSync::block_done(int k) {
  const auto& runs = runs_of_stage_[static_cast<std::size_t>(k) + 1];
  for (std::size_t s = 0; s < runs.size(); ++s) {
    if (runs[s].first == runs[s].last) continue;
    Run& pending = pending_[s];
    if (pending.first != pending.last && runs[s].last != pending.first) reduce(s);
    if (pending.first == pending.last) pending.last = runs[s].last;
    pending.first = runs[s].first;
    const Segment& segment = store_.segments()[s];
    if ((pending.last - pending.first) * size_of(segment.grad.dtype) >= bucket_bytes) reduce(s);
  }
}

void GradientSync::finish() {
  for (std::size_t s = 0; s < pending_.size(); ++s) {
    reduce(s);
    const Segment& segment = store_.segments()[s];
    sharers(segment).before(backend_);
    const Parameter& last = *segment.members.back();
    expect(summed_[s] == last.offset + last.shape.size(),
           "gradient sync: a block was never said to be done, or twice");
    summed_[s] = 0;
  }
}

void GradientSync::squared_norm(TensorView control) {
  backend_.fill(norms_, 0);
  for (const auto& segment : store_.segments()) {
    backend_.sum_of_squares(segment.grad,
                            norms_.row_range(segment.placement == Placement::expert ? 1 : 0, 1));
  }
  Communicator& experts = *grid_.experts;
  if (experts.size() > 1) {
    experts.after(backend_);
    experts.all_reduce(norms_.row_range(1, 1), Reduce::sum);
    experts.before(backend_);
  }
  backend_.sum(norms_, control.row_range(StepControl::squared_norm, 1));
}

}  // namespace smlp
