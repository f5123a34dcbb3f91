// The nodes of an allocation, chosen by stand-ins for SLURM's programs that answer for them.
#include "launcher/allocated_nodes.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/version.h"
#include "fake_programs.h"

namespace smlp {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class AllocatedNodesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto& variables = fakes.variables;
    for (const char* name : {"SLURM_NTASKS_PER_NODE", "SLURM_ARRAY_JOB_ID", "SLURM_STEP_ID", "SLURM_TASKS_PER_NODE"}) {
      variables.unset(name);
    }
    variables.set("SLURM_JOB_ID", "17");
    variables.set("SLURM_JOB_NODELIST", "n[1-4]");
    variables.set("SLURM_JOB_CPUS_PER_NODE", "2(x4)");
    variables.set("ENVIRONMENT", "BATCH");
    job.cluster.ranks = 4;
    job.cluster.launcher = "srun";
    run.root = fakes.place / "run";
    std::filesystem::create_directory(run.root);
    fakes.says("scontrol", "NodeName=n1\n   State=ALLOCATED\n\nNodeName=n2\n   State=ALLOCATED\n\nNodeName=n3\n   State=ALLOCATED\n\n"
                           "NodeName=n4\n   State=ALLOCATED\n");
    for (int node = 1; node <= 4; ++node) node_answers(node, {{0}, {1}});
    exchange_of({100, 100, 100, 100});
    // A step's number, the exchange of all, or the probe of one node.
    const auto steps = (fakes.place / "steps").string();
    fakes.program("srun", "case \"$*\" in *SLURM_STEP_ID*) echo >> '" + steps + "'; wc -l < '" + steps + "' ;; *--exchange*) cat '" + (fakes.place / "exchange").string() +
                              "' ;; *) for word; do case $word in --nodelist=*) cat '" + fakes.place.string() +
                              "'/${word#--nodelist=} ;; esac; done ;; esac");
  }
  void node_answers(int node, const json& cores) {
    const json folder = {{"path", run.root.string()}, {"free_bytes", 50'000'000'000}, {"sync_seconds", 0.01},
                         {"writable", true}, {"failure", ""}};
    const auto name = fmt::format("n{}", node);
    const json report = {{"host", name}, {"cores", cores.size()}, {"threads", cores.size()}, {"core_list", cores},
                         {"memory_bytes", 64'000'000'000}, {"devices", 0}, {"isa", "avx512"}, {"version", version()},
                         {"product_flops", 100e9}, {"best_product_flops", 110e9}, {"run_dir", folder}, {"local_dir", nullptr},
                         {"clock_seconds", 1000.0}, {"up_seconds", 5000.0}};
    std::ofstream(fakes.place / name) << report.dump() << "\n";
  }
  // Megabytes a second that each of the four nodes manages.
  void exchange_of(const std::vector<double>& speeds) {
    json report = {{"hosts", {"n1", "n2", "n3", "n4"}}, {"pairs", json::array()}};
    for (std::size_t a = 0; a < 4; ++a) {
      for (std::size_t b = a + 1; b < 4; ++b) {
        report["pairs"].push_back({{"a", a}, {"b", b}, {"bytes_per_second", 1e6 * std::min(speeds[a], speeds[b])}});
      }
    }
    std::ofstream(fakes.place / "exchange") << report.dump() << "\n";
  }
  Choice choose() {
    nodes = std::make_unique<AllocatedNodes>(job, run, "/bin/smlp-worker", *allocation_of_environment());
    return nodes->choose();
  }

  test::FakePrograms fakes;
  JobConfig job;
  RunDirectory run;
  std::unique_ptr<AllocatedNodes> nodes;
};

TEST_F(AllocatedNodesTest, AreAllTakenInTheirOrderAndTheirRanksBound) {
  const auto layout = *choose().layout;
  EXPECT_THAT(layout.nodes, ElementsAre("n1", "n2", "n3", "n4"));
  EXPECT_TRUE(layout.binding.bound) << layout.binding.words;
  EXPECT_THAT(layout.cores[2], ElementsAre(Core{0}, Core{1}));
  EXPECT_THAT(nodes->start(layout, {"worker"}, {}).command, Contains("--cpu-bind=none")) << "ranks bind themselves";
}

TEST_F(AllocatedNodesTest, WithoutCoresForAllRanksAreNotBound) {
  node_answers(3, json::array({json::array({0})}));
  job.cluster.ranks = 8;
  const auto layout = *choose().layout;
  EXPECT_EQ(layout.ranks, 8);
  EXPECT_FALSE(layout.binding.bound);
  EXPECT_THAT(layout.binding.words, HasSubstr("outnumber the 1 core of n3"));
}

TEST_F(AllocatedNodesTest, OfASharedNodeAreBoundOnlyWhereTheyFillIt) {
  fakes.variables.set("SLURM_JOB_CPUS_PER_NODE", "1(x4)");
  EXPECT_FALSE(choose().layout->binding.bound) << "one rank on two cores of which one is ours";
}

// srun orders them as the allocation does, whatever its --nodelist says: what we show and record must be the same.
TEST_F(AllocatedNodesTest, KeepTheOrderOfTheAllocationWhereASlowOneMustBeTaken) {
  exchange_of({1, 100, 100, 100});
  job.cluster.exchange_check = true;
  job.cluster.slow_nodes = "exclude";
  job.cluster.min_nodes = 4;
  const auto choice = choose();
  EXPECT_THAT(choice.notes, Contains(HasSubstr("node n1 exchanges slowly")));
  EXPECT_THAT(choice.layout->nodes, ElementsAre("n1", "n2", "n3", "n4"));
  job.cluster.min_nodes = 3;
  EXPECT_THAT(choose().layout->nodes, ElementsAre("n2", "n3", "n4"));
}

// scancel once cost the steps since the last checkpoint: SLURM's TERM ended mpirun and its daemons, and they the ranks.
TEST_F(AllocatedNodesTest, MpirunAndItsDaemonsAreDeafToTheSignalAtWhichTheRanksSave) {
  job.cluster.launcher = "mpirun";
  const std::string agent = "OMPI_MCA_orte_launch_agent";
  fakes.variables.unset(agent);
  const auto layout = *choose().layout;
  const auto process = nodes->start(layout, {"worker"}, {});
  EXPECT_EQ(process.command.front(), "mpirun");
  EXPECT_TRUE(process.deaf_to_term);
  EXPECT_THAT(process.environment, Contains(agent + "=env --block-signal=TERM orted"));
  fakes.variables.set(agent, "/opt/orted");
  EXPECT_THAT(nodes->start(layout, {"worker"}, {}).environment,
              AllOf(Contains(agent + "=/opt/orted"), Not(Contains(HasSubstr("--block-signal")))));
  fakes.variables.unset(agent);
  fakes.program("env", "exit 125");  // an old one
  EXPECT_THAT(nodes->start(layout, {"worker"}, {}).environment, Not(Contains(HasSubstr(agent))));
}

// A node that was cut off never tells that its step has ended, and once cost 15 s: each call to SLURM had 10 s of its own.
TEST_F(AllocatedNodesTest, AStepThatDoesNotEndIsNotWaitedForBeyondItsTime) {
  choose();
  fakes.says("squeue", "17.3 worker\n17.batch batch\n");
  fakes.program("scancel", "sleep 30");
  const double began = monotonic_seconds();
  EXPECT_THAT(nodes->end_elsewhere(2), HasSubstr("steps 17.3 have not ended within 2 s"));
  EXPECT_LT(monotonic_seconds() - began, 4);
  EXPECT_THAT(fakes.calls(), Contains("scancel|--signal=KILL|17.3"));
}

TEST_F(AllocatedNodesTest, AStepThatIsGoneIsNotWaitedFor) {
  choose();
  fakes.program("squeue", fmt::format("[ -e {0} ] || echo 17.3 worker; touch {0}", (fakes.place / "ended").string()));
  const double began = monotonic_seconds();
  EXPECT_EQ(nodes->end_elsewhere(20), "");
  EXPECT_LT(monotonic_seconds() - began, 10);
}

TEST_F(AllocatedNodesTest, AnUnsoundListOfCoresBindsNothing) {
  for (const json& odd : {json("0,1"), json({0, 1}), json({{0}, {-1}}), json({{0}, {"1"}}), json({{0}, {1e300}})}) {
    node_answers(2, json::array({json::array({0}), json::array({1})}));
    auto report = json::parse(std::ifstream(fakes.place / "n2"));
    report["core_list"] = odd;
    std::ofstream(fakes.place / "n2") << report.dump() << "\n";
    const auto choice = choose();
    ASSERT_TRUE(choice.layout) << odd;
    EXPECT_FALSE(choice.layout->binding.bound) << odd;
    EXPECT_THAT(choice.layout->binding.words, HasSubstr("the cores of n2 are not known"));
  }
}

}  // namespace
}  // namespace smlp
