#include "launcher/placement.h"

#include <gmock/gmock.h>

#include "core/features.h"
#include "launcher/allocated_nodes.h"

namespace smlp {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

JobConfig sparse_job(std::int64_t experts = 4) {
  JobConfig job;
  job.name = "demo";
  job.model.sparse_blocks = 2;
  job.model.experts = experts;
  job.cluster.launcher = "srun";
  return job;
}

std::vector<Core> cores(int count) {
  std::vector<Core> list;
  for (int core = 0; core < count; ++core) list.push_back({core});
  return list;
}

TEST(Placement, FillsOneNodeAfterAnother) {
  auto layout = layout_on(sparse_job(), {"n1", "n2", "n5"}, 2);
  layout.cores = {cores(2), cores(2), cores(4)};
  layout.binding.bound = true;
  EXPECT_EQ(layout.ranks, 6);
  EXPECT_EQ(layout.expert_ranks, 2) << "of 4 experts on 6 ranks";
  const auto seats = seat(layout, sparse_job()).seats;
  ASSERT_EQ(seats.size(), 6u);
  EXPECT_EQ(seats[3].node, "n2");
  EXPECT_EQ(seats[3].local_rank, 1);
  EXPECT_THAT(seats[3].cpus, ElementsAre(1));
  EXPECT_EQ(seats[3].experts.first_expert, 2);
  EXPECT_EQ(seats[3].experts.experts, 2);
  EXPECT_EQ(seats[3].experts.group, 1);
  EXPECT_EQ(seats[3].experts.replicas, 1);
  EXPECT_THAT(seats[5].cpus, ElementsAre(2)) << "spread over the cores of a larger node";
  EXPECT_EQ(seats[5].device, "cpu");
}

// `auto`, which takes a GPU where there is one, was shown as the processor; ranks that share GPUs as if each had its own.
TEST(Placement, NamesTheDeviceAsFarAsTheJobSaysIt) {
  auto job = sparse_job();
  const auto device = [&] { return seat(layout_on(job, {"n1", "n2"}, 2), job).seats[3].device; };
  EXPECT_EQ(device(), built_with_cuda() ? "auto" : "cpu");
  job.cluster.device = "cuda";
  EXPECT_EQ(device(), "cuda:1");
  job.cluster.communicator = "staged";
  EXPECT_EQ(device(), "cuda");
  job.cluster.device = "cpu";
  EXPECT_EQ(device(), "cpu");
}

TEST(Placement, TellsWhatTheExchangeCrosses) {
  const auto together = seat(layout_on(sparse_job(), {"n1", "n2", "n5"}, 2), sparse_job());
  EXPECT_EQ(together.groups_across_nodes, 0) << "a group of two fits on a node";
  EXPECT_EQ(together.replicas_across_nodes, 2);
  EXPECT_THAT(together.exchange.own, DoubleNear(0.5, 1e-12));
  EXPECT_THAT(together.exchange.within, DoubleNear(0.5, 1e-12));
  EXPECT_THAT(together.exchange.between, DoubleNear(0, 1e-12));

  const auto apart = seat(layout_on(sparse_job(), {"n1", "n2", "n3", "n4"}, 2), sparse_job());
  EXPECT_EQ(apart.expert_groups, 2);
  EXPECT_EQ(apart.groups_across_nodes, 2) << "groups of four on nodes of two";
  EXPECT_THAT(apart.exchange.own, DoubleNear(0.25, 1e-12));
  EXPECT_THAT(apart.exchange.within, DoubleNear(0.25, 1e-12));
  EXPECT_THAT(apart.exchange.between, DoubleNear(0.5, 1e-12));

  JobConfig dense;
  dense.model.sparse_blocks = 0;
  EXPECT_EQ(seat(layout_on(dense, {"n1"}, 2), dense).seats[1].experts.experts, 0);
}

TEST(Placement, OfAJobThatHasNoNodesYetNamesNone) {
  auto job = sparse_job();
  job.slurm.nodes = 2;
  job.slurm.tasks_per_node = 2;
  const auto layout = asked_layout(job);
  EXPECT_THAT(layout.nodes, ElementsAre("node1", "node2"));
  EXPECT_EQ(layout.starter, "srun");
  for (const auto& one : seat(layout, job).seats) EXPECT_THAT(one.cpus, IsEmpty());
}

TEST(Binding, IsForAllNodesOrForNone) {
  auto job = sparse_job();
  job.cluster.device = "cpu";
  const NodeCores two{.node = "n1", .cores = cores(2), .ours_alone = true}, one{.node = "n2", .cores = cores(1), .ours_alone = true};
  EXPECT_TRUE(choose_binding(job, 2, {two, two}).bound);
  const auto few = choose_binding(job, 2, {two, one});
  EXPECT_FALSE(few.bound);
  EXPECT_THAT(few.words, HasSubstr("2 threads there outnumber the 1 core of n2"));
  EXPECT_FALSE(choose_binding(job, 1, {{.node = "n1", .cores = {}, .ours_alone = true}}).bound) << "cores not known";
  EXPECT_TRUE(choose_binding(job, 1, {{.node = "n1", .cores = cores(8), .ours_alone = true}}).bound);
  const auto shared = choose_binding(job, 1, {{.node = "n1", .cores = cores(8), .ours_alone = false}});
  EXPECT_FALSE(shared.bound);
  EXPECT_THAT(shared.words, HasSubstr("room for another job"));
  job.cluster.bind_cores = false;
  EXPECT_THAT(choose_binding(job, 2, {two}).words, HasSubstr("cluster.bind_cores"));
}

// One core, as many as cluster.threads, was for the driver's, NCCL's, the loader's and a save's threads together.
TEST(Binding, IsNotForRanksOnGpus) {
  auto job = sparse_job();
  job.cluster.device = "cuda";
  const auto binding = choose_binding(job, 2, {{.node = "n1", .cores = cores(16), .ours_alone = true}});
  EXPECT_FALSE(binding.bound);
  EXPECT_THAT(binding.words, HasSubstr("beside a GPU"));
}

}  // namespace
}  // namespace smlp
