#include "worker/commands.h"

#include <fmt/format.h>

#include <numeric>

#include "core/error.h"
#include "core/job_file.h"
#include "worker/world.h"

namespace smlp {

LoadedModel load_model(const std::filesystem::path& run_or_checkpoint) {
  const auto checkpoint = find_checkpoint(run_or_checkpoint);
  const auto state = read_run_state(checkpoint);
  const auto text = state.text("job");
  if (text.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("{} does not say which job it is of", checkpoint.string()));
  }
  auto job = parse_job(text, checkpoint / "manifest.json").config;
  auto backend = make_backend(job);
  auto world = join_world(*backend, job.cluster.communicator);
  const auto expert_ranks = std::gcd(static_cast<int>(job.model.experts), world->size());
  auto grid = ProcessGrid::cut(std::move(world), expert_ranks);
  auto engine = std::make_unique<Engine>(job, std::move(backend), std::move(grid), false);
  load_checkpoint(checkpoint, engine->backend(), engine->pieces(false), {.weights_only = true});
  return {std::move(job), std::move(engine), state.text("tokenizer")};
}

}  // namespace smlp
