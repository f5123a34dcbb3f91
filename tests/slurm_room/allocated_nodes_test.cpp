// The nodes of an allocation, chosen by stand-ins for SLURM's programs that answer for them.
#include "launcher/allocated_nodes.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/error.h"
#include "core/version.h"
#include "tests/descriptor_limit.h"
#include "fake_programs.h"
#include "launcher/node_probe.h"
#include "slurm/steps.h"

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
    for (const char* name : {"SLURM_NTASKS_PER_NODE", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_ID",
                             "SLURM_TASKS_PER_NODE"}) {
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
                         {"devices", 0}, {"isa", "avx512"}, {"version", version()},
                         {"product_flops", 100e9}, {"best_product_flops", 110e9}, {"run_dir", folder}, {"local_dir", nullptr},
                         {"clock_seconds", 1000.0}};
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
  EXPECT_THAT(nodes->start(layout, {"worker"}).command, Contains("--cpu-bind=none")) << "ranks bind themselves";
}

// Once this ended the launcher, which writes down the number of its step before each srun. An attempt ends over that.
TEST_F(AllocatedNodesTest, WithoutRoomToNoteAStepTheExchangeIsNotJudged) {
  std::filesystem::create_directory(run.slurm_steps());
  job.cluster.exchange_check = true;
  const auto choice = choose();
  EXPECT_THAT(choice.notes, Contains(AllOf(HasSubstr("the exchange between nodes could not be judged: "),
                                           HasSubstr("slurm-steps"))));
  EXPECT_THAT(choice.layout->nodes, ElementsAre("n1", "n2", "n3", "n4"));
  EXPECT_THROW(nodes->start(*choice.layout, {"worker"}), Error);
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
  const auto process = nodes->start(layout, {"worker"});
  EXPECT_EQ(process.command.front(), "mpirun");
  EXPECT_TRUE(process.deaf_to_term);
  EXPECT_THAT(process.environment, Contains(agent + "=env --block-signal=TERM orted"));
  fakes.variables.set(agent, "/opt/orted");
  EXPECT_THAT(nodes->start(layout, {"worker"}).environment,
              AllOf(Contains(agent + "=/opt/orted"), Not(Contains(HasSubstr("--block-signal")))));
  fakes.variables.unset(agent);
  fakes.program("env", "exit 125");  // an old one
  EXPECT_THAT(nodes->start(layout, {"worker"}).environment, Not(Contains(HasSubstr(agent))));
}

// In the trees of SLURM 22.05 ranks don't wait for each other at the end of MPI_Init, and one that was late died of SIGSEGV.
TEST_F(AllocatedNodesTest, RanksMeetInARingOfSlurmsPmix) {
  fakes.variables.unset("SLURM_PMIX_FENCE");
  const auto layout = *choose().layout;
  EXPECT_THAT(nodes->start(layout, {"worker"}).environment, Contains("SLURM_PMIX_FENCE=ring"));
  fakes.variables.set("SLURM_PMIX_FENCE", "mixed");
  EXPECT_THAT(nodes->start(layout, {"worker"}).environment,
              AllOf(Contains("SLURM_PMIX_FENCE=mixed"), Not(Contains("SLURM_PMIX_FENCE=ring"))));
}

// A node that was cut off never tells that its step has ended, and once cost 15 s: each call to SLURM had 10 s of its own.
TEST_F(AllocatedNodesTest, AStepThatDoesNotEndIsNotWaitedForBeyondItsTime) {
  choose();
  fakes.says("squeue", fmt::format("17.3 {}\n17.batch batch\n", step_name_of(run)));
  fakes.program("scancel", "sleep 30");
  const double began = monotonic_seconds();
  EXPECT_THAT(nodes->end_elsewhere(2), HasSubstr("steps 17.3 have not ended within 2 s"));
  EXPECT_LT(monotonic_seconds() - began, 4);
  EXPECT_THAT(fakes.calls(), Contains("scancel|--signal=KILL|17.3"));
}

TEST_F(AllocatedNodesTest, AStepThatIsGoneIsNotWaitedFor) {
  choose();
  fakes.program("squeue", fmt::format("[ -e {0} ] || echo 17.3 {1}; touch {0}", (fakes.place / "ended").string(),
                                      step_name_of(run)));
  const double began = monotonic_seconds();
  EXPECT_EQ(nodes->end_elsewhere(20), "");
  EXPECT_LT(monotonic_seconds() - began, 10);
}

// Once every step of the job was ended with an attempt: shells and monitors of its owner, ranks of another run.
TEST_F(AllocatedNodesTest, AStepThatIsNotOfThisRunIsLeftAlone) {
  const auto layout = *choose().layout;
  const RunDirectory other{fakes.place / "other"};
  fakes.says("squeue", fmt::format("17.0 bash\n17.1 {}\n17.2 {}\n17.3 smlp-ranks\n", guard_step_name, step_name_of(other)));
  EXPECT_EQ(nodes->end_elsewhere(2), "");
  EXPECT_THAT(fakes.calls(), Not(Contains(HasSubstr("scancel"))));
  const auto name = "--job-name=" + step_name_of(run);
  EXPECT_THAT(nodes->start(layout, {"worker"}).command, Contains(name)) << "else its ranks would be left alone too";
  EXPECT_THAT(fakes.calls(), AllOf(Contains(AllOf(HasSubstr("preflight"), HasSubstr("|" + name + "|"))),
                                   Contains(AllOf(HasSubstr("SLURM_STEP_ID"), HasSubstr("|" + name + "|")))));
  job.cluster.launcher = "mpirun";
  const std::string arguments = "OMPI_MCA_plm_slurm_args";
  fakes.variables.unset(arguments);
  const auto by_mpirun = *choose().layout;
  EXPECT_THAT(nodes->start(by_mpirun, {"worker"}).environment, Contains(arguments + "=" + name));
  fakes.variables.set(arguments, "--external-launcher");  // as SLURM does from 23.11 on
  EXPECT_THAT(nodes->start(by_mpirun, {"worker"}).environment,
              AllOf(Contains(arguments + "=--external-launcher " + name), Not(Contains(arguments + "=--external-launcher"))));
}

// A job with a GPU for each task showed one to the only task of a probe, and its nodes were said to have too few.
TEST_F(AllocatedNodesTest, ProbesAndRanksSeeAllGpusOfTheirNodes) {
  for (const auto& [name, value] : {std::pair("SLURM_GPUS_PER_TASK", "a100:2"), {"SLURM_GPUS_ON_NODE", "4"},
                                    {"SLURM_TRES_PER_TASK", "gres/gpu:a100=2"}, {"SLURM_GPU_BIND", "single:1"}}) {
    fakes.variables.set(name, value);
  }
  const auto seen = fakes.place / "seen";
  fakes.program("srun", fmt::format("env | grep -E '^SLURM_(GPUS_PER|GPU_|TRES)' > {}; exit 1", seen.string()));
  choose();
  EXPECT_EQ(read_text(seen), "SLURM_GPUS_PER_NODE=4\n");
  const auto ranks = nodes->start(Layout{.ranks = 2, .threads = 1, .nodes = {"n1"}, .starter = "srun"}, {"worker"}).environment;
  EXPECT_THAT(ranks, Contains("SLURM_GPUS_PER_NODE=4"));
  for (const char* hides : {"SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_GPU_BIND"}) {
    EXPECT_THAT(ranks, Not(Contains(testing::StartsWith(hides))));
  }
}

// "Invalid generic resource specification" for the probe of every node.
TEST_F(AllocatedNodesTest, OfANumberOfGpusForTheWholeJobAStepAsksForThoseOfANode) {
  fakes.variables.set("SLURM_GPUS", "16");
  fakes.variables.set("SLURM_GPUS_ON_NODE", "4");
  choose();
  const auto ranks = nodes->start(Layout{.ranks = 2, .threads = 1, .nodes = {"n1"}, .starter = "srun"}, {"worker"}).environment;
  EXPECT_THAT(ranks, AllOf(Contains("SLURM_GPUS_PER_NODE=4"), Not(Contains(testing::StartsWith("SLURM_GPUS=")))));
}

// With --export=NONE the ranks had none of the job's variables; with its CPUs for each task the probe, and the daemon of mpirun
// with all ranks of its node, sat on one task's cores.
TEST_F(AllocatedNodesTest, NoVariableGivesAStepLessThanItsNodesHave) {
  for (const char* name : {"SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV", "SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK"}) {
    fakes.variables.set(name, "4");
  }
  const auto seen = fakes.place / "seen";
  fakes.program("srun", fmt::format("env | grep -E 'EXPORT_ENV|CPUS_PER_TASK' >> {}; exit 1", seen.string()));
  for (const char* launcher : {"srun", "mpirun"}) {
    job.cluster.launcher = launcher;
    choose();
    const auto ranks = nodes->start(Layout{.ranks = 2, .threads = 1, .nodes = {"n1"}, .starter = launcher}, {"worker"});
    for (const char* bends : {"SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV", "SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK"}) {
      EXPECT_THAT(ranks.environment, Not(Contains(testing::StartsWith(bends)))) << launcher;
    }
  }
  EXPECT_EQ(read_text(seen), "");
}

// One CPU for a rank of one thread gave it one core of the job's four, and by memory per CPU a quarter of its memory.
TEST_F(AllocatedNodesTest, RanksThatAreNotBoundGetNoFewerCpusThanTheJobAskedFor) {
  const auto command_of = [&](bool bound, std::int64_t threads) {
    choose();
    Layout layout{.ranks = 2, .threads = threads, .nodes = {"n1"}, .starter = "srun"};
    layout.binding.bound = bound;
    return nodes->start(layout, {"worker"}).command;
  };
  EXPECT_THAT(command_of(false, 2), Contains("--cpus-per-task=2"));
  fakes.variables.set("SLURM_CPUS_PER_TASK", "4");
  EXPECT_THAT(command_of(false, 2), Contains("--cpus-per-task=4"));
  EXPECT_THAT(command_of(false, 8), Contains("--cpus-per-task=8"));
  EXPECT_THAT(command_of(true, 2), Not(Contains(HasSubstr("--cpus-per-task")))) << "all CPUs of the job are theirs";
}

// A Prolog of half a minute left all nodes but the first out of the first attempt, which may last a day.
TEST_F(AllocatedNodesTest, ANodeThatIsSilentAtFirstIsAskedOnceMore) {
  job.cluster.preflight_seconds = 1;
  fakes.program("srun", fmt::format("for word; do case $word in --nodelist=n3) [ -e {0}/asked ] || {{ touch {0}/asked; sleep 5; }} ;; "
                                    "esac; done; for word; do case $word in --nodelist=*) cat {0}/${{word#--nodelist=}} ;; esac; done",
                                    fakes.place.string()));
  EXPECT_THAT(choose().layout->nodes, ElementsAre("n1", "n2", "n3", "n4"));
}

TEST_F(AllocatedNodesTest, GpusThatWereAskedForOtherwiseStayAsTheyWere) {
  fakes.variables.set("SLURM_GPUS_PER_NODE", "4");
  choose();
  const auto ranks = nodes->start(Layout{.ranks = 2, .threads = 1, .nodes = {"n1"}, .starter = "srun"}, {"worker"}).environment;
  EXPECT_THAT(ranks, Contains("SLURM_GPUS_PER_NODE=4"));
}

// Once a user's SQUEUE_PARTITION or SCANCEL_STATE hid what an attempt had left, and it was not ended.
TEST_F(AllocatedNodesTest, StepsAreSoughtAndEndedWithoutVariablesThatHideSome) {
  for (const char* name : {"SQUEUE_PARTITION", "SCANCEL_STATE"}) fakes.variables.set(name, "other");
  choose();
  fakes.program("squeue", fmt::format("[ -n \"$SQUEUE_PARTITION\" ] || [ -e {}/ended ] || echo 17.3 {}",
                                      fakes.place.string(), step_name_of(run)));
  fakes.program("scancel", fmt::format("[ -n \"$SCANCEL_STATE\" ] || touch {}/ended", fakes.place.string()));
  EXPECT_EQ(nodes->end_elsewhere(20), "");
  EXPECT_TRUE(std::filesystem::exists(fakes.place / "ended"));
}

TEST_F(AllocatedNodesTest, ADirectoryHasOneNameOfStepsWhateverItIsCalled) {
  std::filesystem::create_symlink(run.root, fakes.place / "link");
  EXPECT_EQ(step_name_of({fakes.place / "link"}), step_name_of(run));
  EXPECT_EQ(step_name_of({run.root / "."}), step_name_of({run.root / "../run"}));
}

// SLURM gives one task of an array the array's own id: asked for that, it lists all tasks' steps and requeues all of them.
TEST_F(AllocatedNodesTest, OfATaskOfAnArrayLeaveTheOtherTasksAlone) {
  fakes.variables.set("SLURM_ARRAY_JOB_ID", "17");
  fakes.variables.set("SLURM_ARRAY_TASK_ID", "1");
  choose();
  fakes.says("squeue", "");
  EXPECT_EQ(nodes->end_elsewhere(2), "");
  fakes.says("scontrol", "JobId=17 ArrayJobId=17 ArrayTaskId=1 JobName=run\n   JobState=RUNNING Reason=None\n"
                         "   PreemptTime=None\n");
  const auto before = fakes.calls().size();
  const auto handover = nodes->hand_over(Leaving::interrupted, 0);
  EXPECT_TRUE(handover.again) << handover.words;
  EXPECT_THAT(handover.words, HasSubstr("job 17_1 is requeued"));
  const auto calls = fakes.calls();
  EXPECT_THAT(calls, Contains("squeue|--steps|--noheader|--jobs|17_1|--format=%i %j"));
  EXPECT_THAT(std::vector(calls.begin() + static_cast<std::ptrdiff_t>(before), calls.end()),
              ElementsAre("scontrol|show|job|17_1", "scontrol|requeue|17_1"));
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

// With 300 at once there were no descriptors left at the usual limit of 1024, and the launcher ended.
TEST_F(AllocatedNodesTest, ProbesOfHundredsOfThemAreNotAllUnderWayAtOnce) {
  fakes.program("srun", "sleep 0.1; for word; do case $word in --nodelist=*) echo ${word#--nodelist=} ;; esac; done");
  std::vector<std::string> names;
  for (int node = 1; node <= 300; ++node) names.push_back(fmt::format("n{}", node));
  const test::DescriptorLimit few(400);
  const auto answers = probe_nodes(names, "/bin/smlp-worker", run, own_environment(), 60);
  ASSERT_EQ(answers.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(answers[i].node, names[i]);
    EXPECT_EQ(answers[i].line, names[i]) << answers[i].failure;
  }
}

// Five ranks on two nodes were four, and nobody said so.
TEST_F(AllocatedNodesTest, TakeAllRanksOrNone) {
  const auto refusal = [&](std::int64_t ranks) -> std::string {
    job.cluster.ranks = ranks;
    try {
      choose();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::configuration);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal(6), HasSubstr("cluster.ranks = 6 can't be shared out evenly over the 4 nodes"));
  job.cluster.spare_nodes = 1;
  EXPECT_EQ(refusal(6), "");
  EXPECT_EQ(choose().layout->ranks, 6);
  EXPECT_EQ(refusal(2), "") << "fewer than there are nodes: one on each of as many";
  EXPECT_EQ(choose().layout->ranks, 2);
  job.slurm.nodes = 2;
  job.slurm.tasks_per_node = 2;
  EXPECT_THAT(refusal(5), HasSubstr("slurm.tasks_per_node = 2 does not divide cluster.ranks = 5"));
  EXPECT_EQ(refusal(4), "");
}

}  // namespace
}  // namespace smlp
