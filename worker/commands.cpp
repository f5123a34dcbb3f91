#include "worker/commands.h"

#include "checkpoint/saved_job.h"
#include "core/layout.h"
#include "worker/load_together.h"
#include "worker/world.h"

namespace smlp {

LoadedModel load_model(const std::filesystem::path& checkpoint) {
  const auto state = read_run_state(checkpoint);
  auto job = saved_job(state, checkpoint).config;
  // Whole routing groups at once, as in training: the capacity of a shorter one is another, and so is what is dropped.
  const auto group = job.routing.group_sequences;
  job.train.micro_batch = (job.train.micro_batch + group - 1) / group * group;
  auto backend = make_backend(job);
  auto world = join_world(*backend, job.cluster.communicator);
  spread_over(job, world->size());
  auto grid = ProcessGrid::cut(std::move(world), static_cast<int>(job.cluster.expert_ranks));
  auto engine = std::make_unique<Engine>(job, std::move(backend), std::move(grid), false);
  auto& ranks = *engine->grid().world;
  load_together(shared_save(checkpoint, ranks.size()), ranks, engine->backend(), engine->pieces(false), {.weights_only = true});
  return {std::move(job), std::move(engine), state.text("tokenizer")};
}

}  // namespace smlp
