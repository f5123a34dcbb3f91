// Where experts lie after nodes were lost.
#include "core/layout.h"

#include <gtest/gtest.h>

namespace smlp {
namespace {

JobConfig job_of(std::int64_t experts, std::int64_t expert_ranks) {
  JobConfig job;
  job.model.sparse_blocks = 1;
  job.model.experts = experts;
  job.model.context = 128;
  job.train.micro_batch = 4;
  job.cluster.expert_ranks = expert_ranks;
  return job;
}

TEST(Layout, ExpertsAreSpreadAsTheyWereOrAsFarAsTheyDivide) {
  auto job = job_of(12, 4);
  EXPECT_EQ(expert_ranks_on(job, 8), 4);
  EXPECT_EQ(expert_ranks_on(job, 6), 6);
  EXPECT_EQ(expert_ranks_on(job, 9), 3);
  job.model.sparse_blocks = 0;
  EXPECT_EQ(expert_ranks_on(job, 9), 1);
}

// 3 ranks were left of 4, which shared 12 experts; 512 tokens can't be dealt out to 3, and each attempt died of that.
TEST(Layout, ShuffledTokensCanBeDealtOutToTheRanksThatAreLeft) {
  auto job = job_of(12, 4);
  job.routing.shuffle = true;
  EXPECT_EQ(expert_ranks_on(job, 4), 4);
  EXPECT_EQ(expert_ranks_on(job, 3), 1);
  EXPECT_EQ(expert_ranks_on(job, 6), 2);
  job.train.micro_batch = 6;
  EXPECT_EQ(expert_ranks_on(job, 3), 3);
}

}  // namespace
}  // namespace smlp
