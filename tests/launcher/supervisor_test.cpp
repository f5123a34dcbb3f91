// Every row of "the life of one failure" (docs/architecture.md), with a fake worker under a real mpirun.
#include <gmock/gmock.h>

#include "core/host_name.h"
#include "core/process.h"
#include "launcher/supervisor.h"
#include "supervised_run.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class SupervisorRestarts : public test::SupervisedRun {};
class SupervisorGivesUp : public test::SupervisedRun {};
class SupervisorHangs : public test::SupervisedRun {};
class SupervisorDies : public test::SupervisedRun {};

TEST_F(SupervisorRestarts, NotAtAllWhenTheRunIsDone) {
  EXPECT_EQ(supervise("* * steps 3\n* * checkpoint\n"), 0);
  ASSERT_EQ(attempts().size(), 1u);
  const auto only = attempts()[0];
  EXPECT_EQ(only["exit_code"], 0);
  EXPECT_EQ(only["cause"], "done");
  EXPECT_EQ(only["first_step"], 1);
  EXPECT_EQ(only["last_step"], 3);
  EXPECT_EQ(only["ranks"], 2);
  EXPECT_THAT(output(), AllOf(HasSubstr("http://127.0.0.1:4711/metrics"), HasSubstr("step 3/1000"),
                              HasSubstr("done: checkpoint 3")));
  EXPECT_EQ(events("done"), 1);
  EXPECT_TRUE(nothing_lives());
}

TEST_F(SupervisorRestarts, FromTheNewestCheckpointAfterADeathBySignalAndTellsTheCost) {
  EXPECT_EQ(supervise("1 * steps 4\n1 * checkpoint\n1 * steps 3\n1 1 raise 9\n1 0 wait\n2 * steps 2\n"), 0);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_EQ(attempts()[0]["exit_code"], 137);
  EXPECT_EQ(attempts()[0]["cause"], "signal");
  EXPECT_EQ(attempts()[0]["reason"], "rank 1 was killed by signal 9 (SIGKILL)");
  EXPECT_EQ(attempts()[0]["last_step"], 7);
  EXPECT_EQ(attempts()[1]["from_checkpoint"], 4);
  EXPECT_EQ(attempts()[1]["first_step"], 5);
  EXPECT_THAT(output(), AllOf(HasSubstr("rank 1 was killed by signal 9 (SIGKILL)"),
                              HasSubstr("3 steps are done again (5 to 7"), HasSubstr("attempt 2 starts from checkpoint 4 at once"),
                              HasSubstr("training again at step 5")));
  EXPECT_EQ(events("restart"), 1);
  EXPECT_EQ(events("recovered"), 1);
  EXPECT_THAT(arguments(2, 0), Not(HasSubstr("--not-after")));
}

// The newest was named on the terminal, in the event and in attempts.jsonl, though the ranks had rejected it.
TEST_F(SupervisorRestarts, AndSaysWhatTheRanksRejectedAndFromWhereTheyReallyGoOn) {
  EXPECT_EQ(supervise("1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n"), 0);
  EXPECT_TRUE(attempts()[0]["from_checkpoint"].is_null());
  EXPECT_THAT(output(), Not(HasSubstr("attempt 1: "))) << "there was nothing to choose from";
  std::ofstream(run / "checkpoints/step-00000004/manifest.json") << "damaged";
  EXPECT_EQ(supervise("2 * steps 1\n2 1 raise 9\n2 0 wait\n3 * steps 1\n"), 0);
  ASSERT_EQ(attempts().size(), 3u);
  for (const int attempt : {2, 3}) {
    EXPECT_EQ(attempts()[static_cast<std::size_t>(attempt) - 1]["from_checkpoint"], 2);
    EXPECT_EQ(attempts()[static_cast<std::size_t>(attempt) - 1]["first_step"], 3);
    EXPECT_THAT(output(), HasSubstr("attempt " + std::to_string(attempt) + ": going on from checkpoint 2\n"));
  }
  const std::string rejected = "checkpoint rejected: step-00000004: its manifest is damaged\n";
  EXPECT_THAT(output(), AllOf(HasSubstr(rejected), Not(HasSubstr("from checkpoint 4")),
                              HasSubstr("starts from checkpoint 2 in 0.1 s, or from one before it if that does not hold")));
  EXPECT_EQ(output().find(rejected), output().rfind(rejected)) << "once";
  for (const auto& line : lines("events.jsonl")) {
    if (line["event"] != "attempt_started") continue;
    EXPECT_THAT(line["detail"].get<std::string>(), Not(HasSubstr("from checkpoint")));
  }

  std::ofstream(run / "checkpoints/step-00000002/manifest.json") << "damaged";
  EXPECT_EQ(supervise("4 * steps 1\n"), 0);
  EXPECT_TRUE(attempts()[3]["from_checkpoint"].is_null());
  EXPECT_EQ(attempts()[3]["first_step"], 1);
  EXPECT_THAT(output(), HasSubstr("attempt 4: beginning with the first step\n"));
}

// It named the last save that it had heard of, and one before it: the ranks went on from a later one on the nodes.
TEST_F(SupervisorRestarts, AndSaysThatNodesMayHoldALaterSave) {
  const std::string script = "1 * steps 2\n1 * checkpoint\n1 1 raise 9\n1 0 wait\n2 * steps 1\n";
  EXPECT_EQ(supervise(script, {"local-dir=/tmp"}), 0);
  EXPECT_THAT(output(), HasSubstr("attempt 2 starts from checkpoint 2 at once, or from one before it if that does not hold, "
                                  "or from a later save that the nodes hold"));
}

TEST_F(SupervisorRestarts, AfterAFaultAndAfterAFailedDisk) {
  EXPECT_EQ(supervise("1 1 exit 70 it broke at step 0\n2 0 exit 74 the disk is full\n3 * steps 1\n"
                      "1 * wait\n2 * wait\n"), 0);
  ASSERT_EQ(attempts().size(), 3u);
  EXPECT_EQ(attempts()[0]["cause"], "fault");
  EXPECT_EQ(attempts()[0]["reason"], "rank 1: it broke at step 0");
  EXPECT_EQ(attempts()[1]["cause"], "io");
  EXPECT_EQ(attempts()[1]["exit_code"], 74);
  EXPECT_THAT(output(), HasSubstr("rank 0: the disk is full"));
}

// A full disk has no room for the folder of an attempt's logs either: the launcher ended then, without a record.
TEST_F(SupervisorRestarts, AfterAnAttemptThatCouldNotEvenBegin) {
  script("1 * steps 2\n1 * checkpoint\n1 * steps 100000\n* * steps 1\n");
  start({"pause=0.3"});
  ASSERT_TRUE(test::eventually([&] { return trains(3); }));
  std::filesystem::rename(run / "logs", run / "before");
  std::ofstream(run / "logs") << "no folder";
  for (const auto& [pid, command] : processes("fake_worker")) kill(pid, SIGKILL);
  ASSERT_TRUE(test::eventually([&] { return attempts().size() >= 2; }));
  std::filesystem::remove(run / "logs");
  std::filesystem::rename(run / "before", run / "logs");
  EXPECT_EQ(wait(), 0);
  EXPECT_EQ(attempts()[1]["cause"], "io");
  EXPECT_THAT(attempts()[1]["reason"].get<std::string>(), HasSubstr("no rank was started"));
  EXPECT_TRUE(attempts()[1]["last_step"].is_null());
  EXPECT_EQ(attempts().back()["cause"], "done");
  EXPECT_EQ(attempts().back()["first_step"], 3);
}

// A heartbeat that a network disk keeps for a process that can't be ended blocked all further attempts.
TEST_F(SupervisorRestarts, WhereTheDiskKeepsAnOldHeartbeat) {
  const auto kept = run / "heartbeats/.nfs00000001";
  std::filesystem::create_directories(kept);
  const test::SmallDisk busy(kept);
  if (!busy.mounted()) GTEST_SKIP() << "no file system can be mounted here";
  EXPECT_EQ(supervise("* * steps 1\n"), 0);
  EXPECT_EQ(attempts().size(), 1u);
}

// A disk that was full for four seconds once cost three attempts in a row, and so the run.
TEST_F(SupervisorRestarts, OnADiskThatWasFullForAWhileAndDoNotCountTheAttemptsThatItEnded) {
  const test::SmallDisk disk(run);
  if (!disk.mounted()) GTEST_SKIP() << "no file system can be mounted here";
  script("1 * steps 2\n1 * checkpoint\n1 * steps 100000\n* * steps 1\n");
  start({"pause=0.05"});
  ASSERT_TRUE(test::eventually([&] { return trains(3); }));
  disk.fill();
  for (const auto& [pid, command] : processes("fake_worker")) kill(pid, SIGKILL);
  std::this_thread::sleep_for(std::chrono::seconds(4));
  disk.make_room();
  EXPECT_EQ(wait(), 0);
  EXPECT_LE(attempts().size(), 3u);
  EXPECT_EQ(attempts().back()["first_step"], 3);
  EXPECT_EQ(events("disk_full"), 1);
  EXPECT_EQ(events("disk_has_room"), 1);
  EXPECT_THAT(output(), HasSubstr("is full (No space left on device): waiting for room, 10:00 at most"));
}

TEST_F(SupervisorGivesUp, WhereTheDiskStaysFull) {
  const test::SmallDisk disk(run);
  if (!disk.mounted()) GTEST_SKIP() << "no file system can be mounted here";
  script("* * steps 2\n* * checkpoint\n* * steps 100000\n");
  start({"full-disk=1"});
  ASSERT_TRUE(test::eventually([&] { return trains(3); }));
  disk.fill();
  for (const auto& [pid, command] : processes("fake_worker")) kill(pid, SIGKILL);
  const int code = wait();
  EXPECT_THAT(output(), HasSubstr("giving up, for 3 attempts in a row"));
  disk.make_room();
  EXPECT_EQ(code, 134) << "of the last attempt: a fake worker aborts where it can't write";
}

TEST_F(SupervisorRestarts, BeforeTheNewestCheckpointAfterDivergenceAndFurtherBackTheNextTime) {
  EXPECT_EQ(supervise("1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n"
                      "1 * steps 1\n1 0 exit 76 the loss is not finite\n1 1 wait\n"
                      "2 * steps 2\n2 * checkpoint\n2 0 exit 76 the loss is not finite\n2 1 wait\n"
                      "3 * steps 3\n3 0 raise 11\n3 1 wait\n4 * steps 1\n"), 0);
  ASSERT_EQ(attempts().size(), 4u);
  EXPECT_EQ(attempts()[0]["cause"], "diverged");
  EXPECT_THAT(arguments(2, 0), HasSubstr("--not-after\n4"));
  EXPECT_EQ(attempts()[1]["first_step"], 5);
  EXPECT_THAT(arguments(3, 1), HasSubstr("--not-after\n2"));
  EXPECT_EQ(attempts()[2]["cause"], "signal");
  EXPECT_EQ(attempts()[2]["first_step"], 3);
  EXPECT_THAT(arguments(4, 0), Not(HasSubstr("--not-after"))) << "the choice had been made by attempt 3";
}

// However much had been saved since the first divergence, all of it was given up at the second.
TEST_F(SupervisorRestarts, BeforeTheNewestCheckpointAfterADivergenceThatIsAnotherOne) {
  EXPECT_EQ(supervise("1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n1 0 exit 76 the loss is not finite\n1 1 wait\n"
                      "2 * steps 2\n2 * checkpoint\n2 * steps 2\n2 * checkpoint\n2 * steps 2\n2 * checkpoint\n"
                      "2 0 exit 76 the loss is not finite\n2 1 wait\n3 * steps 1\n"), 0);
  ASSERT_EQ(attempts().size(), 3u);
  EXPECT_THAT(arguments(2, 0), HasSubstr("--not-after\n2\n"));
  EXPECT_THAT(arguments(3, 0), HasSubstr("--not-after\n6\n")) << "of the checkpoints at 2, 4, 6 and 8";
  EXPECT_EQ(attempts()[2]["first_step"], 7);
}

// keep_last = 1: once it began with the first step again.
TEST_F(SupervisorRestarts, FromTheOnlyCheckpointAfterDivergenceAndFromTheFirstStepTheNextTime) {
  EXPECT_EQ(supervise("1 * steps 2\n1 * checkpoint\n1 0 exit 76 the loss is not finite\n1 1 wait\n"
                      "2 * steps 1\n2 0 exit 76 the loss is not finite\n2 1 wait\n3 * steps 1\n"), 0);
  ASSERT_EQ(attempts().size(), 3u);
  EXPECT_EQ(attempts()[1]["first_step"], 3);
  EXPECT_EQ(attempts()[2]["first_step"], 1);
  EXPECT_THAT(output(), AllOf(HasSubstr("attempt 3 starts from the start"), Not(HasSubstr("checkpoint 0"))));
}

// The checkpoint before the newest published one, though that was before the save on the nodes from which it diverged.
TEST_F(SupervisorRestarts, BeforeTheNewestSaveOnTheNodesAfterDivergence) {
  EXPECT_EQ(supervise("1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * local\n1 * steps 1\n"
                      "1 0 raise 9\n1 1 wait\n2 0 exit 76 the loss is not finite\n2 1 wait\n3 * steps 1\n"), 0);
  ASSERT_EQ(attempts().size(), 3u);
  EXPECT_EQ(attempts()[1]["from_checkpoint"], 6);
  EXPECT_THAT(arguments(3, 0), HasSubstr("--not-after\n4\n"));
  EXPECT_EQ(attempts()[2]["first_step"], 5);
}

// Without a published checkpoint there was no bound: the same save was taken until the run gave up.
TEST_F(SupervisorRestarts, BeforeTheOnlySaveOnTheNodesAfterDivergence) {
  EXPECT_EQ(supervise("1 * steps 2\n1 * local\n1 * steps 1\n1 0 exit 76 the loss is not finite\n1 1 wait\n"
                      "2 * steps 1\n"), 0);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_THAT(arguments(2, 0), HasSubstr("--not-after\n1\n"));
  EXPECT_EQ(attempts()[1]["first_step"], 1);
}

TEST_F(SupervisorRestarts, FromWhereTheRanksSayWhateverTheCode) {
  const std::string three = "1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n";
  EXPECT_EQ(supervise(three + "1 0 verdict {\"not_after\":3,\"reason\":\"the replicas of 'embed' differ\"}\n"
                      "1 0 exit 70 a fault\n1 1 wait\n2 * steps 1\n"), 0);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_EQ(attempts()[0]["reason"], "the replicas of 'embed' differ");
  EXPECT_THAT(arguments(2, 0), HasSubstr("--not-after\n3"));
  EXPECT_EQ(attempts()[1]["first_step"], 3) << "of the checkpoints at 2, 4 and 6 the first alone is left";
}

TEST_F(SupervisorRestarts, AsOftenAsTheRanksHaveABudgetFor) {
  std::string script = "* * steps 1\n* * checkpoint\n6 * exit 0\n";
  script += "* 0 verdict {\"not_after\":0,\"budgeted\":true,\"reason\":\"a spike\"}\n* 0 exit 76\n* 1 wait\n";
  EXPECT_EQ(supervise(script), 0);
  EXPECT_EQ(attempts().size(), 6u) << "no newer checkpoint than that of step 1, and no reason to give up";
}

// Once three failures of nodes after a rewind ended a run, though each attempt had saved: its steps were below those given up.
TEST_F(SupervisorRestarts, AfterARewindAsLongAsAttemptsSaveWhatWasGivenUp) {
  EXPECT_EQ(supervise("1 * steps 1\n1 * checkpoint\n1 * steps 9\n1 * checkpoint\n"
                      "1 0 verdict {\"not_after\":1,\"reason\":\"the replicas of 'embed' differ\"}\n1 0 exit 70 a fault\n"
                      "5 * exit 0\n* * steps 1\n* * checkpoint\n* 1 raise 9\n* 0 wait\n"), 0);
  ASSERT_EQ(attempts().size(), 5u);
  EXPECT_EQ(attempts()[4]["from_checkpoint"], 4);
  EXPECT_THAT(output(), HasSubstr("attempt 5 starts from checkpoint 4 at once"));
}

// What had been saved on nodes that were lost counted on: attempts that went on from one save to the next ended the run.
TEST_F(SupervisorRestarts, AsLongAsAttemptsSaveAgainWhatWasLostWithItsNodes) {
  EXPECT_EQ(supervise("1 * steps 1\n1 * checkpoint\n1 * steps 9\n1 * local\n1 * steps 1\n1 0 lost\n1 0 raise 9\n1 1 wait\n"
                      "6 * exit 0\n* * steps 2\n* * local\n* * steps 1\n* 1 raise 9\n* 0 wait\n"), 0);
  ASSERT_EQ(attempts().size(), 6u);
  EXPECT_EQ(attempts()[1]["from_checkpoint"], 1);
  EXPECT_EQ(attempts()[4]["from_checkpoint"], 7);
}

TEST_F(SupervisorGivesUp, WhereEachAttemptLosesWhatItsNodesHadSaved) {
  EXPECT_EQ(supervise("1 * steps 1\n1 * checkpoint\n* * steps 2\n* * local\n* * steps 1\n* 0 lost\n* 0 raise 9\n* 1 wait\n"),
            137);
  EXPECT_EQ(attempts().size(), 4u) << "the first made progress, three more saved the same again";
}

TEST_F(SupervisorGivesUp, WhereEachAttemptIsRewoundFromTheSameStep) {
  EXPECT_EQ(supervise("* * steps 1\n* * checkpoint\n* 0 verdict {\"not_after\":0,\"reason\":\"the loss is not finite\"}\n"
                      "* 0 exit 76\n* 1 wait\n"), 76);
  EXPECT_EQ(attempts().size(), 4u) << "the first made progress, three more did not";
}

TEST_F(SupervisorGivesUp, WhereNoAttemptAfterARewindChoosesItsCheckpoint) {
  EXPECT_EQ(supervise("1 * steps 1\n1 * checkpoint\n1 * steps 9\n1 * checkpoint\n"
                      "1 0 verdict {\"not_after\":1,\"reason\":\"the replicas of 'embed' differ\"}\n1 0 exit 70 a fault\n"
                      "1 1 wait\n2 * early\n3 * early\n4 * early\n", {"start=1"}), 134);
  EXPECT_EQ(attempts().size(), 4u) << "the checkpoint of step 10 that lies there is no progress of theirs";
}

TEST_F(SupervisorGivesUp, WhereTheRanksSayThatThereIsNoPoint) {
  EXPECT_EQ(supervise("* * steps 1\n* * checkpoint\n1 0 verdict {\"stop\":true,\"not_after\":0,\"reason\":\"it "
                      "spikes\"}\n1 0 exit 76\n1 1 wait\n"), 76);
  EXPECT_EQ(attempts().size(), 1u);
  EXPECT_THAT(output(), HasSubstr("it spikes"));
  EXPECT_EQ(supervise("2 * steps 1\n"), 0) << "started again by hand it goes on, from before the spike";
  EXPECT_THAT(arguments(2, 0), HasSubstr("--not-after\n0"));
}

TEST_F(SupervisorRestarts, OnOneRankAndOnMoreThanThereAreCores) {
  EXPECT_EQ(supervise("1 0 raise 9\n2 * steps 1\n", {"ranks=1"}), 0);
  EXPECT_EQ(attempts().size(), 2u);
  EXPECT_EQ(supervise("* * steps 1\n", {"ranks=7"}), 0);
  EXPECT_EQ(attempts().size(), 3u) << "attempts are counted on over several starts";
  EXPECT_EQ(attempts()[2]["attempt"], 3);
}

TEST_F(SupervisorRestarts, WithTheWeightsToStartFromHandedOn) {
  EXPECT_EQ(supervise("* * steps 1\n", {"init-from=/elsewhere/step-00000009"}), 0);
  EXPECT_THAT(arguments(1, 1), HasSubstr("--init-from\n/elsewhere/step-00000009"));
}

// Ranks that died within half a second of their choice once left the bound for the next attempt, which then gave up sound
// checkpoints.
TEST_F(SupervisorRestarts, FromTheNewestAfterAnAttemptTooShortForAPulse) {
  script("1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n1 0 exit 76 diverged\n1 1 wait\n"
         "2 * silent\n2 * steps 2\n2 * checkpoint\n2 0 exit 70 a fault\n2 1 wait\n3 * steps 1\n");
  start();
  EXPECT_EQ(wait(), 0);
  ASSERT_EQ(attempts().size(), 3u);
  EXPECT_THAT(arguments(2, 0), HasSubstr("--not-after\n2"));
  EXPECT_THAT(arguments(3, 0), testing::Not(HasSubstr("--not-after")));
  EXPECT_EQ(attempts()[2]["first_step"], 5);
}

TEST_F(SupervisorGivesUp, AfterThreeAttemptsWithoutProgressWithTheCodeOfTheLast) {
  EXPECT_EQ(supervise("1 * steps 2\n1 * checkpoint\n1 0 exit 70\n* * steps 1\n4 1 raise 9\n4 0 wait\n* 0 exit 70 again\n"
                      "* 1 wait\n", {"pause=0.2"}), 137);
  ASSERT_EQ(attempts().size(), 4u) << "attempt 1 made progress, three more did not";
  EXPECT_EQ(events("handed_over_after_failure"), 0) << "there is nobody to hand it over to";
  EXPECT_THAT(output(), AllOf(HasSubstr("attempt 3 starts from checkpoint 2 in 0.2 s"),
                              HasSubstr("attempt 4 starts from checkpoint 2 in 0.4 s"),
                              HasSubstr("3 attempts in a row brought no new checkpoint"),
                              HasSubstr("rank 1 was killed by signal 9"), HasSubstr("logs/attempt-0004")));
  EXPECT_EQ(events("gave_up"), 1);
}

TEST_F(SupervisorGivesUp, AfterTheRestartsThatWereAllowed) {
  EXPECT_EQ(supervise("* * steps 1\n* * checkpoint\n* 0 exit 74\n* 1 wait\n", {"max-restarts=1"}), 74);
  EXPECT_EQ(attempts().size(), 2u);
  EXPECT_THAT(output(), HasSubstr("1 restarts were allowed"));
}

TEST_F(SupervisorGivesUp, AtOnceWhereTryingAgainCantHelp) {
  for (const int code : {64, 65, 69, 78}) {
    std::filesystem::remove(run / "attempts.jsonl");
    std::filesystem::remove_all(run / "logs");
    EXPECT_EQ(supervise("* 1 exit " + std::to_string(code) + " model.context is too big\n* 0 wait\n"), code);
    EXPECT_EQ(attempts().size(), 1u);
    EXPECT_THAT(output(), HasSubstr("smlp: rank 1: model.context is too big"));
  }
  EXPECT_TRUE(nothing_lives());
}

// A GPU that fell off the bus, or whose memory the attempt before still held, ended a run of days for good.
TEST_F(SupervisorRestarts, WhereWhatIsMissingWasThereBefore) {
  EXPECT_EQ(supervise("1 * steps 2\n1 * checkpoint\n1 1 exit 69 the GPU has no memory left\n1 * hang\n2 * steps 1\n"), 0);
  EXPECT_EQ(attempts().size(), 2u);
}

TEST_F(SupervisorHangs, ARankWithoutProgressIsEndedInBoundedTimeAndNamed) {
  script("1 * limit 0.5\n1 0 steps 3\n1 1 steps 2\n1 * deaf\n1 * hang\n2 * steps 1\n");
  const double begun = monotonic_seconds();
  start({"grace=0.5"});
  EXPECT_EQ(wait(), 0);
  EXPECT_LT(monotonic_seconds() - begun, 20);  // two starts on a busy machine; a hang would last for good
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_EQ(attempts()[0]["exit_code"], 134);
  EXPECT_EQ(attempts()[0]["cause"], "hang");
  EXPECT_THAT(attempts()[0]["reason"].get<std::string>(),
              AllOf(HasSubstr("rank 1 makes no progress"), HasSubstr("step 2")));
  EXPECT_EQ(events("hang"), 1);
}

TEST_F(SupervisorHangs, AStoppedRankIsEndedToo) {
  script("1 * limit 0.5\n1 * steps 2\n1 1 raise 19\n1 0 wait\n2 * steps 1\n");
  start({"grace=0.5"});
  EXPECT_EQ(wait(), 0);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_THAT(attempts()[0]["reason"].get<std::string>(), HasSubstr("rank 1 makes no progress"));
  EXPECT_TRUE(nothing_lives());
}

TEST_F(SupervisorHangs, ARankThatNeverShowsUpIsEnded) {
  script("1 1 silent\n1 * hang\n2 * steps 1\n");
  start({"start=6"});
  EXPECT_EQ(wait(), 0);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_THAT(attempts()[0]["reason"].get<std::string>(), HasSubstr("rank 1 gave no sign of life within 6 s"));
}

TEST_F(SupervisorHangs, ARankThatFallsSilentIsEnded) {
  script("1 * limit 0.5\n1 * steps 2\n1 1 mute\n1 1 hang\n1 0 wait\n2 * steps 1\n");
  start({"grace=0.5"});
  EXPECT_EQ(wait(), 0);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_EQ(attempts()[0]["cause"], "hang");
}

TEST_F(SupervisorHangs, ASlowRankWithinItsLimitIsLeftAlone) {
  script("1 * limit 5\n1 * steps 2 800\n");
  start({"grace=0.5"});
  EXPECT_EQ(wait(), 0);
  EXPECT_EQ(attempts().size(), 1u);
}

// Once a run started from a login node was ended every 10 s: with no rank here, all those here were dead.
TEST_F(SupervisorHangs, NotWhereNoRankIsOnTheLaunchersHost) {
  script("1 * elsewhere\n1 * steps 20 50\n");
  start({"starter-end=0.3"});
  EXPECT_EQ(wait(), 0);
  ASSERT_EQ(attempts().size(), 1u) << attempts()[0]["reason"];
  EXPECT_EQ(events("hang"), 0);
}

TEST_F(SupervisorHangs, NotWhereTheRanksOfTheLaunchersHostAloneHaveEnded) {
  script("1 1 elsewhere\n1 * steps 2\n1 1 limit 60\n1 1 limit 60\n1 1 limit 60\n1 1 limit 60\n1 1 limit 60\n"
         "1 1 limit 60\n1 1 limit 60\n1 1 limit 60\n");
  start({"starter-end=0.3"});
  EXPECT_EQ(wait(), 0);
  ASSERT_EQ(attempts().size(), 1u) << attempts()[0]["reason"];
  EXPECT_EQ(events("hang"), 0);
}

TEST_F(SupervisorHangs, OrphansOfAnAttemptAreGoneBeforeTheNext) {
  EXPECT_EQ(supervise("1 * orphan\n1 * steps 2\n1 0 raise 9\n1 1 wait\n2 * orphan\n2 * steps 1\n"), 0);
  EXPECT_EQ(attempts().size(), 2u);
  EXPECT_TRUE(nothing_lives());
}

TEST_F(SupervisorDies, AndNoProcessOutlivesIt) {
  script("* * deaf\n* * steps 100000\n");
  const pid_t pid = start();
  ASSERT_TRUE(test::eventually([&] { return trains(3); }));
  EXPECT_EQ(processes("fake_worker").size(), 2u);
  kill(pid, SIGKILL);
  EXPECT_EQ(wait(2), 137);
  EXPECT_TRUE(test::eventually([&] { return nothing_lives(); }, 2));

  // The next start tells of the attempt whose launcher died, and goes on.
  EXPECT_EQ(supervise("* * steps 1\n"), 0);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_EQ(attempts()[0]["cause"], "launcher");
  EXPECT_EQ(attempts()[1]["attempt"], 2);
}

// Once the next launcher went on from the newest checkpoint, which held the flipped bit.
TEST_F(SupervisorDies, AndTheNextKeepsTheBoundOfAnAttemptWhoseSuccessorHadNotChosenYet) {
  script("1 * steps 2\n1 * checkpoint\n1 * steps 2\n1 * checkpoint\n"
         "1 0 verdict {\"not_after\":3,\"reason\":\"the replicas of 'embed' differ\"}\n1 0 exit 70 a fault\n1 1 wait\n"
         "2 * early\n3 * steps 1\n");
  const pid_t pid = start();
  ASSERT_TRUE(test::eventually([&] { return !arguments(2, 0).empty() && !arguments(2, 1).empty(); }));
  kill(pid, SIGKILL);
  EXPECT_EQ(wait(2), 137);
  ASSERT_TRUE(test::eventually([&] { return nothing_lives(); }, 2));
  start();
  EXPECT_EQ(wait(), 0);
  ASSERT_EQ(attempts().size(), 3u);
  EXPECT_EQ(attempts()[1]["cause"], "launcher");
  EXPECT_THAT(arguments(3, 0), HasSubstr("--not-after\n3"));
  EXPECT_EQ(attempts()[2]["first_step"], 3);
}

TEST_F(SupervisorDies, NotWithMpirunWhoseRanksGoWithIt) {
  script("1 * deaf\n1 * steps 100000\n2 * steps 1\n");
  start();
  ASSERT_TRUE(test::eventually([&] { return trains(3); }));
  const auto mpirun = processes("mpirun");
  ASSERT_EQ(mpirun.size(), 1u);
  const auto workers = processes("fake_worker");
  kill(mpirun[0].first, SIGKILL);
  ASSERT_TRUE(test::eventually([&] {
    return std::none_of(workers.begin(), workers.end(), [](const auto& w) { return is_alive(w.first); });
  }, 2));
  EXPECT_EQ(wait(), 0);
  ASSERT_EQ(attempts().size(), 2u);
  EXPECT_EQ(attempts()[0]["reason"], "mpirun was killed by signal 9 (SIGKILL)");
}

TEST_F(SupervisorDies, NotWhenASecondOneIsStartedWhichIsRefused) {
  script("* * steps 100000\n");
  const pid_t first = start();
  ASSERT_TRUE(test::eventually([&] { return trains(3); }));
  start();
  EXPECT_EQ(wait(5), 75);
  EXPECT_THAT(output(), HasSubstr("is in use by process " + std::to_string(first) + " on " + host_name()));
  EXPECT_TRUE(is_alive(first));
  EXPECT_EQ(processes("fake_worker").size(), 2u);
  kill(first, SIGKILL);
  waitpid(first, nullptr, 0);
}

}  // namespace
}  // namespace smlp
