#include "optim/gradient_sync.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/numbers.h"

namespace smlp {

namespace {

constexpr std::int64_t bucket_bytes = std::int64_t{4} << 20;

// 0: before the stack (the embedding), k + 1: blocks.k, blocks + 1: behind it (the head).
std::size_t stage_of(const Parameter& parameter, bool stack_begun, int blocks) {
  constexpr std::string_view prefix = "blocks.";
  const std::string& name = parameter.name;
  if (name.starts_with(prefix)) {
    std::string_view behind = std::string_view(name).substr(prefix.size());
    const auto k = take_whole_number(behind);
    expect(k && *k < blocks, [&] { return fmt::format("parameter '{}' belongs to no block of the stack", name); });
    return static_cast<std::size_t>(*k) + 1;
  }
  return stack_begun ? static_cast<std::size_t>(blocks) + 1 : 0;
}

}  // namespace

GradientSync::GradientSync(Backend& backend, ParameterStore& store, ProcessGrid& grid, int blocks, bool sharded)
    : backend_(backend), store_(store), grid_(grid), sharded_(sharded && grid.world->size() > 1) {
  cut_buckets(final_with_each_stage(blocks));
  stages_left_ = buckets_.size();
  if (sharded_) {
    for (const auto& buckets : buckets_) {
      for (const Bucket& bucket : buckets) shares_.push_back(own_part(bucket));
    }
  } else {
    shares_ = whole_segments(store_);
  }
  norms_ = TensorView(backend_.allocate(2 * size_of(DType::f64)), {2}, DType::f64);
  own_norm_ = TensorView(backend_.allocate(size_of(DType::f64)), {1}, DType::f64);
}

GradientSync::~GradientSync() {
  backend_.release(norms_.data);
  backend_.release(own_norm_.data);
}

// [stage][segment]; of no element where the stage has none. Padding goes with what follows it, and in shares, which
// must be equal, with what is before it.
std::vector<std::vector<GradientSync::Bucket>> GradientSync::final_with_each_stage(int blocks) const {
  const std::size_t segments = store_.segments().size();
  std::vector<std::vector<Bucket>> runs(static_cast<std::size_t>(blocks) + 2);
  for (auto& of_stage : runs) {
    for (std::size_t s = 0; s < segments; ++s) of_stage.push_back({s, 0, 0});
  }
  std::vector<std::pair<std::size_t, std::int64_t>> last(segments, {0, 0});  // stage, end of its run
  bool stack_begun = false;
  for (const auto& parameter : store_.parameters()) {
    const std::size_t stage = stage_of(parameter, stack_begun, blocks);
    stack_begun = stack_begun || stage > 0;
    auto& [previous, end] = last[parameter.segment];
    expect(stage >= previous, "parameters were not added in the order of the stack");
    Bucket& run = runs[stage][parameter.segment];
    if (run.count == 0) run.first = end;
    end = parameter.offset + parameter.shape.size();
    if (sharded_) end = store_.aligned(end);
    run.count = end - run.first;
    previous = stage;
  }
  return runs;
}

void GradientSync::cut_buckets(const std::vector<std::vector<Bucket>>& of_stages) {
  buckets_.resize(of_stages.size());
  std::vector<Bucket> pending(store_.segments().size());
  for (std::size_t stage = of_stages.size(); stage-- > 0;) {
    for (const Bucket& run : of_stages[stage]) {
      Bucket& bucket = pending[run.segment];
      if (run.count > 0) bucket = {run.segment, run.first, run.count + bucket.count};
      const auto bytes = bucket.count * size_of(store_.segments()[run.segment].grad.dtype);
      if (bytes < bucket_bytes && (stage > 0 || bytes == 0)) continue;
      buckets_[stage].push_back(bucket);
      bucket = {};
    }
  }
}

bool GradientSync::own_finite() const {
  double norm = 0;
  if (own_known_) backend_.download(own_norm_, &norm);
  return std::isfinite(norm);
}

Communicator& GradientSync::sharers(std::size_t segment) const {
  return store_.segments()[segment].placement == Placement::replicated ? *grid_.world : *grid_.replicas;
}

GradientSync::Bucket GradientSync::own_part(const Bucket& bucket) const {
  const Communicator& ranks = sharers(bucket.segment);
  expect(bucket.count % ranks.size() == 0, "gradient sync: the parameters were not laid out for so many shares");
  const std::int64_t count = bucket.count / ranks.size();
  return {bucket.segment, bucket.first + ranks.rank() * count, count};
}

void GradientSync::reduce(const Bucket& bucket) {
  const TensorView flat = store_.segments()[bucket.segment].grad, grad = bucket.of(flat);
  if (watched_) {
    if (!own_known_) backend_.fill(own_norm_, 0);
    own_known_ = true;
    backend_.sum_of_squares(grad, own_norm_);
  }
  Communicator& ranks = sharers(bucket.segment);
  if (ranks.size() == 1) return;
  const PhaseScope scope(backend_.phase_clock(), Phase::reduce);
  ranks.after(backend_);
  if (sharded_) {
    ranks.reduce_scatter(grad, own_part(bucket).of(flat));
  } else {
    ranks.all_reduce(grad, Reduce::sum);
  }
}

void GradientSync::block_done(int k) {
  const auto stage = static_cast<std::size_t>(k + 1);
  expect(stage + 1 == stages_left_, "gradient sync: a block was never said to be done, or twice");
  stages_left_ = stage;
  for (const Bucket& bucket : buckets_[stage]) reduce(bucket);
}

void GradientSync::finish() {
  expect(stages_left_ == 0, "gradient sync: a block was never said to be done, or twice");
  stages_left_ = buckets_.size();
  const PhaseScope scope(backend_.phase_clock(), Phase::reduce);
  grid_.world->before(backend_);
  grid_.replicas->before(backend_);
}

void GradientSync::squared_norm(TensorView control) {
  backend_.fill(norms_, 0);
  for (const Share& share : shares_) {
    const Segment& segment = store_.segments()[share.segment];
    const std::int64_t kind = segment.placement == Placement::expert ? 1 : 0;
    backend_.sum_of_squares(share.of(segment.grad), norms_.row_range(kind, 1));
  }
  // What one rank alone has: all of its shares, or its experts.
  Communicator& ranks = sharded_ ? *grid_.world : *grid_.experts;
  if (ranks.size() > 1) {
    ranks.after(backend_);
    ranks.all_reduce(sharded_ ? norms_ : norms_.row_range(1, 1), Reduce::sum);
    ranks.before(backend_);
  }
  backend_.sum(norms_, control.row_range(StepControl::squared_norm, 1));
}

void GradientSync::gather_values() {
  if (!sharded_) return;
  const PhaseScope scope(backend_.phase_clock(), Phase::reduce);
  grid_.world->after(backend_);
  grid_.replicas->after(backend_);
  for (const auto& buckets : buckets_) {
    for (const Bucket& bucket : buckets) {
      Communicator& ranks = sharers(bucket.segment);
      const TensorView values = store_.segments()[bucket.segment].value;
      if (ranks.size() > 1) ranks.all_gather(own_part(bucket).of(values), bucket.of(values));
    }
  }
  grid_.world->before(backend_);
  grid_.replicas->before(backend_);
}

}  // namespace smlp
