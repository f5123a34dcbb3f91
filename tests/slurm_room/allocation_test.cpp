#include "slurm/allocation.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/host_name.h"
#include "variables.h"

namespace smlp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class AllocationOfEnvironment : public testing::Test {
 protected:
  // As SLURM 22.05 sets them in the batch script of `sbatch -N3 --ntasks-per-node=2`, once requeued.
  void SetUp() override {
    for (const char* name : {"SLURM_NTASKS_PER_NODE", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_ID"}) {
      variables.unset(name);
    }
    variables.set("SLURM_JOB_ID", "17");
    variables.set("SLURM_JOB_NAME", "a run");
    variables.set("SLURM_JOB_NODELIST", "n[1-2],gpu07");
    variables.set("SLURM_JOB_CPUS_PER_NODE", "4(x2),8");
    variables.set("SLURM_TASKS_PER_NODE", "2(x3)");
    variables.set("SLURM_NTASKS_PER_NODE", "2");
    variables.set("SLURM_RESTART_COUNT", "1");
    variables.set("ENVIRONMENT", "BATCH");
  }
  void expect_refusal(const std::string& variable, const std::string& value) {
    variables.set(variable, value);
    try {
      allocation_of_environment();
      ADD_FAILURE() << variable << "=" << value << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::unavailable);
      EXPECT_THAT(error.what(), HasSubstr(variable + "=" + value));
    }
  }
  test::Variables variables;
};

TEST_F(AllocationOfEnvironment, TellsWhatSlurmGave) {
  const auto allocation = allocation_of_environment();
  ASSERT_TRUE(allocation);
  EXPECT_EQ(allocation->job_id, "17");
  EXPECT_THAT(allocation->node_names(), ElementsAre("n1", "n2", "gpu07"));
  EXPECT_EQ(allocation->nodes[1].cpus, 4);
  EXPECT_EQ(allocation->nodes[2].cpus, 8);
  EXPECT_EQ(allocation->restarts, 1);
  EXPECT_FALSE(allocation->array);
  EXPECT_TRUE(allocation->in_batch_script);
}

// A slow node was named by its long name, and stayed in the run.
TEST_F(AllocationOfEnvironment, NamesThisNodeAsItsListDoes) {
  variables.set("SLURMD_NODENAME", "gpu07");
  EXPECT_EQ(node_name(), "gpu07");
  variables.unset("SLURMD_NODENAME");
  EXPECT_EQ(node_name(), host_name());
}

TEST_F(AllocationOfEnvironment, KnowsWhereItStands) {
  variables.set("SLURM_STEP_ID", "0");
  EXPECT_FALSE(allocation_of_environment()->in_batch_script) << "a step inherits ENVIRONMENT=BATCH";
  variables.unset("SLURM_STEP_ID");
  variables.unset("ENVIRONMENT");
  EXPECT_FALSE(allocation_of_environment()->in_batch_script) << "salloc";
  variables.unset("SLURM_JOB_ID");
  EXPECT_FALSE(allocation_of_environment());
}

// `smlp` refused to work in a step on some of the job's nodes.
TEST_F(AllocationOfEnvironment, InsideAStepKnowsTheJobAllTheSame) {
  variables.unset("SLURM_NTASKS_PER_NODE");
  variables.set("SLURM_STEP_ID", "4");
  variables.set("SLURM_TASKS_PER_NODE", "1");
  const auto allocation = allocation_of_environment();
  EXPECT_THAT(allocation->node_names(), ElementsAre("n1", "n2", "gpu07"));
  EXPECT_EQ(allocation->nodes[2].cpus, 8);
  EXPECT_FALSE(allocation->in_batch_script);
}

// A run was refused for a count of tasks that nobody reads.
TEST_F(AllocationOfEnvironment, AsksForNoTasks) {
  variables.set("SLURM_TASKS_PER_NODE", "two");
  variables.set("SLURM_NTASKS_PER_NODE", "two");
  EXPECT_TRUE(allocation_of_environment());
}

TEST_F(AllocationOfEnvironment, KnowsItsPlaceInAnArray) {
  variables.unset("SLURM_RESTART_COUNT");
  variables.set("SLURM_ARRAY_JOB_ID", "15");
  variables.set("SLURM_ARRAY_TASK_ID", "3");
  const auto allocation = allocation_of_environment();
  EXPECT_EQ(allocation->restarts, 0);
  ASSERT_TRUE(allocation->array);
  EXPECT_EQ(allocation->array->job_id, "15");
  EXPECT_EQ(allocation->array->task, 3);
  EXPECT_EQ(allocation->job_id, "17");
  EXPECT_EQ(allocation->controller_id(), "15_3");
}

TEST_F(AllocationOfEnvironment, NamesTheVariableThatCannotBeRead) {
  expect_refusal("SLURM_JOB_NODELIST", "n[1-");
  variables.set("SLURM_JOB_NODELIST", "n[1-3]");
  for (const char* wrong : {"4(x2)", "4(x9)", "4,4,4,4", "four", "4(x-1),4,4", "4(x", "-1(x3)"}) {
    expect_refusal("SLURM_JOB_CPUS_PER_NODE", wrong);
  }
  variables.unset("SLURM_JOB_CPUS_PER_NODE");
  expect_refusal("SLURM_RESTART_COUNT", "often");
}

}  // namespace
}  // namespace smlp
