// What a plan takes for granted of a job.
#include "worker/plan_json.h"

#include <gtest/gtest.h>

#include "worker/engine.h"

namespace smlp {
namespace {

// The plan rounded down where the engine rounds up: half of such a step's exchange was missing.
TEST(PlanJson, AStepWhoseBatchRanksDoNotDivideHasItsLastRoundToo) {
  JobConfig job;
  job.model = {.kind = "smlp", .context = 16, .width = 8, .hidden = 16, .dense_blocks = 1, .sparse_blocks = 1, .experts = 4};
  job.model.vocabulary = 64;
  job.train.micro_batch = job.routing.group_sequences = 1;
  job.cluster.ranks = job.cluster.expert_ranks = 4;
  const auto exchanged = [&](std::int64_t global_batch) {
    job.train.global_batch = global_batch;
    return count_job(job).exchange_bytes_per_step;
  };
  const auto one_round = exchanged(4);
  EXPECT_GT(one_round, 0);
  EXPECT_EQ(exchanged(6), 2 * one_round);
  EXPECT_EQ(exchanged(8), 2 * one_round);
  EXPECT_EQ(exchanged(9), 3 * one_round);
  EXPECT_EQ(micro_batches_of_step(job, 2), 5);
}

// A job sized by the plan was killed at its first save, for want of the memory of the copy.
TEST(PlanJson, TellsTheCopyThatSavesTake) {
  JobConfig job;
  job.model = {.kind = "gmlp", .context = 16, .width = 8, .hidden = 16, .dense_blocks = 1};
  job.model.vocabulary = 64;
  job.train.micro_batch = job.routing.group_sequences = 1;
  job.cluster.ranks = job.cluster.expert_ranks = 2;
  const auto counts = count_job(job);
  EXPECT_EQ(counts.checkpoint_copy_bytes, (counts.checkpoint_bytes + 1) / 2);
  job.checkpoint.local_dir = "/somewhere";
  EXPECT_EQ(count_job(job).checkpoint_copy_bytes, 2 * counts.checkpoint_copy_bytes);
  EXPECT_EQ(to_json(counts)["checkpoint_copy_bytes_per_rank"], counts.checkpoint_copy_bytes);
}

}  // namespace
}  // namespace smlp
