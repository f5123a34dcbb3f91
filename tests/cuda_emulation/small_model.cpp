#include "tests/cuda_emulation/small_model.h"

#include "core/random.h"

namespace smlp::test {

std::unique_ptr<Communicator> join(Ranks ranks, Backend& backend) {
  if (ranks == Ranks::one) return make_solo(backend);
  auto group = world().split(0, world().rank());
  if (ranks == Ranks::staged) return make_staged(std::move(group), backend);
  return ranks == Ranks::by_nccl ? make_nccl(std::move(group), backend) : std::move(group);
}

SmallRun::SmallRun(JobConfig job, Ranks ranks, std::unique_ptr<Backend> backend) : job_(std::move(job)) {
  auto group = join(ranks, *backend);
  job_.cluster.ranks = group->size();
  engine_ = std::make_unique<Engine>(job_, std::move(backend),
                                     ProcessGrid::cut(std::move(group), static_cast<int>(job_.cluster.ranks)), true);
}

StepResult SmallRun::step() {
  const RandomStream random(3, "tokens");
  const ReadBatch read = [&](std::int64_t position, std::int64_t count, std::int64_t, const std::int32_t*& in,
                             const std::int32_t*& wanted) {
    while_reading();
    tokens_.clear();
    for (std::int64_t i = 0; i < count * job_.model.context; ++i) {
      const auto place = static_cast<std::uint64_t>(position * job_.model.context + i);
      tokens_.push_back(static_cast<std::int32_t>(random.bits(place) % 64));
    }
    in = wanted = tokens_.data();
  };
  std::vector<double> flags;
  const auto position = steps_++ * job_.train.global_batch;
  return engine_->train_step(steps_, position, read, flags, [] {});
}

}  // namespace smlp::test
