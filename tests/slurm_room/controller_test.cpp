#include "slurm/controller.h"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "core/clock.h"
#include "fake_programs.h"

namespace smlp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Optional;
using testing::SizeIs;

constexpr const char* unreachable = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n";

class ControllerAsks : public testing::Test {
 protected:
  void SetUp() override { fakes.variables.unset("SLURM_JOB_ID"); }
  test::FakePrograms fakes;
  // So patient that only the tests of its patience ever see it end.
  Controller controller{{.seconds = 20, .submit_seconds = 20, .tries = 3, .pause_seconds = 0.01}};
  Controller hasty{{.seconds = 0.5, .submit_seconds = 0.5, .tries = 2, .pause_seconds = 0.01}};
};

TEST_F(ControllerAsks, IsPresentWhereSbatchIs) {
  fakes.variables.set("PATH", (fakes.place / "bin").string());
  EXPECT_FALSE(Controller::present());
  std::ofstream(fakes.place / "bin/sbatch") << "not executable";
  EXPECT_FALSE(Controller::present());
  fakes.program("sbatch", "");
  EXPECT_TRUE(Controller::present());
}

TEST_F(ControllerAsks, ProgramsThatAreMissingAreAnAnswer) {
  fakes.variables.set("PATH", (fakes.place / "bin").string());
  EXPECT_EQ(controller.state_of_job("17").state, JobState::unknown);
  EXPECT_THAT(controller.state_of_job("17").words, HasSubstr("scontrol could not be started: No such file"));
  EXPECT_FALSE(controller.requeue("17").done);
  EXPECT_EQ(controller.states_of_nodes({"n1"}).at(0).state, NodeState::unknown);
  EXPECT_FALSE(controller.launch_types().answered);
  EXPECT_EQ(controller.partitions(), std::nullopt);
  EXPECT_FALSE(controller.submit("script").job_id);
}

TEST_F(ControllerAsks, ForTheStateOfAJob) {
  fakes.says("scontrol", "JobId=17 JobName=run\n   JobState=RUNNING Reason=None\n   PreemptTime=None\n");
  const auto answer = controller.state_of_job("17");
  EXPECT_EQ(answer.state, JobState::running);
  EXPECT_THAT(answer.words, HasSubstr("JobState=RUNNING"));
  EXPECT_THAT(fakes.calls(), ElementsAre("scontrol|show|job|17"));
}

// Else a task of an array that was cancelled would only end, for no known reason, and be requeued.
TEST_F(ControllerAsks, ForOurOwnTaskOfAnArray) {
  fakes.says("scontrol", "JobId=17 ArrayJobId=15 ArrayTaskId=3 JobName=run\n   JobState=COMPLETING Reason=None\n"
                         "   RunTime=00:00:05 TimeLimit=00:30:00\n   StartTime=2026-01-01T00:00:00 "
                         "EndTime=2026-01-01T00:00:05\n   PreemptTime=None\n");
  EXPECT_EQ(controller.state_of_job("15_3").state, JobState::completing);
  fakes.variables.set("SLURM_JOB_ID", "17");
  fakes.variables.set("SLURM_ARRAY_JOB_ID", "15");
  fakes.variables.set("SLURM_ARRAY_TASK_ID", "3");
  EXPECT_EQ(controller.state_of_job("15_3").state, JobState::cancelled);
  EXPECT_EQ(controller.state_of_job("17").state, JobState::cancelled);
  EXPECT_EQ(controller.state_of_job("15_4").state, JobState::completing);
}

TEST_F(ControllerAsks, WhatIsNoIdIsNotAsked) {
  fakes.says("scontrol", "JobId=17 JobName=run\n   JobState=RUNNING\n");
  for (const char* hostile : {"", "17; touch x", "--all", "$(id)", "17 18", "run"}) {
    EXPECT_EQ(controller.state_of_job(hostile).state, JobState::unknown) << hostile;
    EXPECT_FALSE(controller.requeue(hostile).done) << hostile;
  }
  EXPECT_THAT(fakes.calls(), IsEmpty());
}

TEST_F(ControllerAsks, AgainOnlyWhereTheControllerWasSilent) {
  fakes.says("scontrol", unreachable, 1, true);
  EXPECT_EQ(controller.state_of_job("17").state, JobState::unknown);
  EXPECT_THAT(fakes.calls(), SizeIs(3));
  EXPECT_THAT(controller.state_of_job("17").words, HasSubstr("Unable to contact slurm controller"));

  fakes.says("scontrol", "slurm_load_jobs error: Invalid job id specified\n", 1, true);
  const auto asked = fakes.calls().size();
  EXPECT_EQ(controller.state_of_job("18").words, "slurm_load_jobs error: Invalid job id specified");
  EXPECT_EQ(fakes.calls().size(), asked + 1);
}

TEST_F(ControllerAsks, AndAControllerThatComesBackIsHeard) {
  fakes.program("scontrol", "if mkdir '" + (fakes.place / "once").string() + "' 2>/dev/null; then echo '" +
                                std::string("Unable to contact slurm controller") +
                                "' >&2; exit 1; fi; printf 'JobId=17 JobName=x\\n   JobState=PENDING Reason=None\\n'");
  EXPECT_EQ(controller.state_of_job("17").state, JobState::pending);
  EXPECT_THAT(fakes.calls(), SizeIs(2));
}

TEST_F(ControllerAsks, NoLongerThanItsTimeLimit) {
  fakes.program("scontrol", "trap '' TERM INT; sleep 100 & echo $! > '" + (fakes.place / "child").string() +
                                "'; while :; do sleep 0.1; done");
  const double begin = monotonic_seconds();
  EXPECT_THAT(hasty.state_of_job("17").words, HasSubstr("scontrol did not answer within 0.5 s"));
  EXPECT_LT(monotonic_seconds() - begin, 10);
  EXPECT_THAT(fakes.calls(), SizeIs(2));
  const auto child = std::stoi(test::file_contents(fakes.place / "child"));
  for (int i = 0; i < 500 && kill(child, 0) == 0; ++i) usleep(10'000);
  EXPECT_NE(0, kill(child, 0)) << "its children are ended with it";
}

TEST_F(ControllerAsks, AndDoesNotWaitForWhatAProgramLeavesBehind) {
  fakes.program("scontrol", "sleep 100 & printf 'JobId=17 JobName=x\\n   JobState=RUNNING\\n'");
  const double begin = monotonic_seconds();
  EXPECT_EQ(controller.state_of_job("17").state, JobState::running);
  EXPECT_LT(monotonic_seconds() - begin, 15);
}

TEST_F(ControllerAsks, LargeAnswersArriveWhole) {
  fakes.program("scontrol", "printf 'JobId=17 JobName=x\\n'; head -c 3000000 /dev/zero | tr '\\0' x; echo; "
                            "head -c 3000000 /dev/zero | tr '\\0' e >&2; printf '   JobState=RUNNING\\n'");
  EXPECT_EQ(controller.state_of_job("17").state, JobState::running);
}

TEST_F(ControllerAsks, WithoutVariablesThatBendTheAnswer) {
  fakes.variables.set("SLURM_TIME_FORMAT", "relative");
  fakes.variables.set("SINFO_FORMAT", "%D");
  fakes.variables.set("SLURM_CONF", "/some/slurm.conf");
  fakes.program("sinfo", "env >> '" + (fakes.place / "environment").string() + "'; echo batch");
  EXPECT_THAT(controller.partitions(), Optional(ElementsAre("batch")));
  const auto environment = test::file_contents(fakes.place / "environment");
  EXPECT_THAT(environment, HasSubstr("SLURM_CONF=/some/slurm.conf"));
  EXPECT_THAT(environment, testing::Not(HasSubstr("SINFO_FORMAT")));
  EXPECT_THAT(environment, testing::Not(HasSubstr("SLURM_TIME_FORMAT")));
}

TEST_F(ControllerAsks, ToRequeueAndTellsWhyNot) {
  fakes.says("scontrol", "");
  EXPECT_TRUE(controller.requeue("17").done);
  EXPECT_THAT(fakes.calls(), ElementsAre("scontrol|requeue|17"));
  fakes.says("scontrol", "Requeue not permitted for job 17\n", 1, true);
  const auto refused = controller.requeue("17");
  EXPECT_FALSE(refused.done);
  EXPECT_EQ(refused.words, "Requeue not permitted for job 17");
  fakes.says("scontrol", "Unexpected message received for job 17\n", 1, true);  // 22.05, its controller away
  controller.requeue("17");
  EXPECT_THAT(fakes.calls(), SizeIs(5));
}

TEST_F(ControllerAsks, ForNodesAllAtOnce) {
  fakes.says("scontrol",
             "Node n9 not found\nNodeName=n2 Arch=x86_64\n   State=DOWN+NOT_RESPONDING ThreadsPerCore=1\n"
             "   Reason=Not responding [root@now]\n\nNodeName=n1 Arch=x86_64\n   State=MIXED ThreadsPerCore=1\n",
             1);
  const auto nodes = controller.states_of_nodes({"n1", "n2", "n9", "n;1", "-x"});
  ASSERT_THAT(nodes, SizeIs(5));
  EXPECT_EQ(nodes[0].state, NodeState::up);
  EXPECT_EQ(nodes[1].state, NodeState::down);
  EXPECT_EQ(nodes[1].words, "DOWN+NOT_RESPONDING: Not responding [root@now]");
  EXPECT_EQ(nodes[2].state, NodeState::unknown);
  EXPECT_EQ(nodes[4].state, NodeState::unknown);
  EXPECT_THAT(nodes[4].words, HasSubstr("'-x' is no name"));
  EXPECT_THAT(fakes.calls(), ElementsAre("scontrol|show|node|n[1-2,9]"));

  fakes.says("scontrol", unreachable, 1, true);
  EXPECT_THAT(controller.states_of_nodes({"n1"}).at(0).words, HasSubstr("Unable to contact"));
}

TEST_F(ControllerAsks, HowStepsCanBeLaunched) {
  const std::string list = "MPI plugin types are...\n\tpmix\n\tnone\n\tpmi2\nspecific pmix plugin versions available: pmix_v3,pmix_v4\n";
  fakes.says("srun", list);
  EXPECT_THAT(controller.launch_types().names, ElementsAre("pmix", "none", "pmi2", "pmix_v3", "pmix_v4"));
  EXPECT_TRUE(controller.launch_types().has_pmix());
  fakes.says("srun", "srun: MPI types are...\nsrun: none\nsrun: pmi2\n", 0, true);  // as before 21.08
  EXPECT_THAT(controller.launch_types().names, ElementsAre("none", "pmi2"));
  EXPECT_FALSE(controller.launch_types().has_pmix());
  fakes.says("srun", "srun: fatal: no plugins\n", 1, true);
  EXPECT_FALSE(controller.launch_types().answered);
  EXPECT_THAT(controller.launch_types().words, HasSubstr("no plugins"));
}

TEST_F(ControllerAsks, WhetherAPartitionExists) {
  fakes.says("sinfo", "batch\nurgent\nbatch\n");
  EXPECT_TRUE(holds_partitions(*controller.partitions(), "urgent"));
  EXPECT_TRUE(holds_partitions(*controller.partitions(), "batch,urgent"));
  EXPECT_FALSE(holds_partitions(*controller.partitions(), "batch,night"));
  EXPECT_FALSE(holds_partitions(*controller.partitions(), "urg"));
  EXPECT_FALSE(holds_partitions(*controller.partitions(), ","));
  fakes.says("sinfo", unreachable, 1, true);
  EXPECT_EQ(controller.partitions(), std::nullopt);
}

TEST_F(ControllerAsks, ToSubmitWithEveryArgumentIntact) {
  fakes.says("sbatch", "a site's greeting\n4711;cluster\n");
  const auto script = (fakes.place / "a b; $(id).sh").string();
  std::ofstream(script) << "#!/bin/bash\n";
  EXPECT_THAT(controller.submit(script, {"--hold", "--comment=a 'b' $c"}).job_id, Optional(std::string("4711")));
  EXPECT_THAT(fakes.calls(), ElementsAre("sbatch|--parsable|--hold|--comment=a 'b' $c|" + script));

  fakes.says("sbatch", "sbatch: error: Batch job submission failed: Invalid account\n", 1, true);
  const auto refused = controller.submit(script);
  EXPECT_FALSE(refused.job_id);
  EXPECT_TRUE(refused.refused);
  EXPECT_EQ(refused.words, "sbatch: error: Batch job submission failed: Invalid account");
  fakes.says("sbatch", "sbatch: error: Batch job submission failed: Unable to contact slurm controller\n", 1, true);
  EXPECT_FALSE(controller.submit(script).refused);
  fakes.says("sbatch", "Submitted, somehow\n");
  EXPECT_THAT(controller.submit(script).words, HasSubstr("named no job id, but said: Submitted, somehow"));
  fakes.says("sbatch", "");
  EXPECT_FALSE(controller.submit(script).job_id);
  controller.submit("-x.sh");
  EXPECT_EQ(fakes.calls().back(), "sbatch|--parsable|./-x.sh") << "no option";
}

// Four messages run together, and the exit code of a job that SLURM does not want.
TEST_F(ControllerAsks, WhetherAnybodyIsThereToSubmitTo) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\nsbatch: error: fetch_config: DNS SRV lookup failed\n"
       "sbatch: error: _establish_config_source: failed to fetch config\nsbatch: fatal: Could not establish a configuration source\n",
       "Could not establish a configuration source"},
      {"sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n\n",
       "Batch job submission failed: Unable to contact slurm controller (connect failure)"}};
  for (const auto& [text, last] : table) {
    fakes.says("sbatch", text, 1, true);
    const auto answer = controller.submit("script");
    EXPECT_FALSE(answer.job_id);
    EXPECT_FALSE(answer.refused);
    EXPECT_EQ(answer.words, "SLURM's controller can't be reached from here: " + last + " (sbatch); `sinfo` answers when it can be");
  }
}

TEST_F(ControllerAsks, ASubmissionOnceAndSaysThatItMayHaveBeenHeard) {
  fakes.program("sbatch", "exec sleep 100");
  const auto answer = hasty.submit("script");
  EXPECT_FALSE(answer.job_id);
  EXPECT_THAT(answer.words, HasSubstr("whether the job was accepted, `squeue --me` tells"));
  EXPECT_THAT(fakes.calls(), SizeIs(1));
}

TEST_F(ControllerAsks, ToSubmitWithoutVariablesThatOutrankTheScript) {
  const auto script = (fakes.place / "script").string();
  std::ofstream(script) << "#!/bin/bash\n#SBATCH --time=10\n#SBATCH --requeue\n#SBATCH --open-mode=append\n"
                           "#SBATCH --mem=1G\necho '#SBATCH --account=x'\n";
  for (const char* name : {"SBATCH_TIMELIMIT", "SBATCH_NO_REQUEUE", "SBATCH_OPEN_MODE", "SBATCH_MEM_PER_CPU",
                           "SBATCH_ACCOUNT", "SBATCH_HOLD", "SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_CONF"}) {
    fakes.variables.set(name, "7");
  }
  fakes.program("sbatch", "env | grep -oE '^S(BATCH|LURM)_[A-Z_]*' | sort > '" + (fakes.place / "seen").string() +
                              "'; echo 1");
  ASSERT_TRUE(controller.submit(script, {"--hold=x"}).job_id);
  EXPECT_EQ(test::file_contents(fakes.place / "seen"), "SBATCH_ACCOUNT\nSLURM_CONF\n");
}

}  // namespace
}  // namespace smlp
