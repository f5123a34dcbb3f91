// A run that is asked to stop, by signals and by requests, at any time of its life: with a fake worker under a real mpirun.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "core/control_folder.h"
#include "launcher/run_history.h"
#include "supervised_run.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class SupervisorStops : public test::SupervisedRun {
 protected:
  void expect_ranks_to_save_on() const {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_THAT(output(), Not(HasSubstr("leaving at once")));
    EXPECT_EQ(processes("fake_worker").size(), 2u);
  }
};

TEST_F(SupervisorStops, SavingFirstAndLeavesWith75) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    script("* * steps 100000\n");
    const auto before = attempts().size(), metrics = lines("metrics.jsonl").size();
    const pid_t pid = start();
    ASSERT_TRUE(test::eventually([&] { return trains(4, metrics); }));
    kill(pid, signal);
    EXPECT_EQ(wait(5), 75);
    ASSERT_EQ(attempts().size(), before + 1);
    EXPECT_EQ(attempts().back()["exit_code"], 75);
    EXPECT_THAT(output(), AllOf(HasSubstr("the ranks save, then leave"), HasSubstr("the run goes on from checkpoint")));
    EXPECT_EQ(RunHistory(RunDirectory{run}).newest_step(), attempts().back()["last_step"].get<std::int64_t>());
    EXPECT_TRUE(nothing_lives());
  }
}

TEST_F(SupervisorStops, AtOnceOnTheSecondSignal) {
  script("* * deaf\n* * steps 100000\n");
  const pid_t pid = start();
  ASSERT_TRUE(test::eventually([&] { return trains(5); }));
  kill(pid, SIGTERM);
  ASSERT_TRUE(test::eventually([&] { return output().find("save, then leave") != std::string::npos; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_FALSE(nothing_lives()) << "the first signal must not end deaf ranks";
  kill(pid, SIGTERM);
  EXPECT_EQ(wait(3), 75);
  EXPECT_TRUE(nothing_lives());
}

// coreutils' `timeout` signals the program and then its group: nothing was saved.
TEST_F(SupervisorStops, SavingFirstWhereTheSameSignalComesTwiceAtOnce) {
  script("* * steps 100000\n");
  const pid_t pid = start();
  ASSERT_TRUE(test::eventually([&] { return trains(4); }));
  kill(pid, SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  kill(pid, SIGTERM);
  EXPECT_EQ(wait(5), 75);
  EXPECT_THAT(output(), Not(HasSubstr("leaving at once")));
  EXPECT_EQ(RunHistory(RunDirectory{run}).newest_step(), attempts().back()["last_step"].get<std::int64_t>());
}

// The second of two signals once killed a launcher whose ranks had saved, between its last look and its end.
TEST_F(SupervisorStops, WithItsOwnExitCodeWhereASignalComesWhenAllIsOver) {
  script("* * steps 100000\n");
  const pid_t pid = start({"lingers=0.5"});
  ASSERT_TRUE(test::eventually([&] { return trains(4); }));
  kill(pid, SIGTERM);
  ASSERT_TRUE(test::eventually([&] { return output().find("the run goes on from checkpoint") != std::string::npos; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  kill(pid, SIGTERM);
  EXPECT_EQ(wait(5), 75);
}

// SLURM's TERM reaches the launcher of a batch job itself, and by way of its guard a little later.
TEST_F(SupervisorStops, SavingFirstWhereASignalComesByTwoWays) {
  script("* * deaf\n* * steps 100000\n");
  const pid_t pid = start({"one-request=60"});
  ASSERT_TRUE(test::eventually([&] { return trains(4); }));
  kill(pid, SIGTERM);
  ASSERT_TRUE(test::eventually([&] { return events("signal") == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  kill(pid, SIGTERM);
  ASSERT_TRUE(test::eventually([&] { return events("signal") == 2; }));
  expect_ranks_to_save_on();
}

// SLURM warns by USR1 of a time limit or a preemption, and sends TERM when that has come: the save it warned for goes on.
TEST_F(SupervisorStops, SavingFirstWhereTheTermOfAWarningComesLater) {
  script("* * deaf\n* * steps 100000\n");
  const pid_t pid = start();
  ASSERT_TRUE(test::eventually([&] { return trains(4); }));
  kill(pid, SIGUSR1);
  ASSERT_TRUE(test::eventually([&] { return events("signal") == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  kill(pid, SIGTERM);
  ASSERT_TRUE(test::eventually([&] { return events("signal") == 2; }));
  expect_ranks_to_save_on();
}

// systemd sends HUP with its TERM: the second one killed the last save.
TEST_F(SupervisorStops, SavingFirstWhereAnotherSignalComesWithTheFirst) {
  script("* * deaf\n* * steps 100000\n");
  const pid_t pid = start({"one-request=60"});
  ASSERT_TRUE(test::eventually([&] { return trains(4); }));
  int heard = 0;
  for (const int signal : {SIGTERM, SIGHUP, SIGUSR1, SIGINT}) {
    kill(pid, signal);
    ++heard;
    ASSERT_TRUE(test::eventually([&] { return events("signal") == heard; }));
  }
  expect_ranks_to_save_on();
}

// A run that was done when the signal came was told as stopped. The launcher is held up while it reads a heartbeat, until
// the ranks have ended and the signal waits for it.
TEST_F(SupervisorStops, NotARunThatIsDoneAlready) {
  script("* * silent\n* * requested\n");
  const pid_t pid = start();
  ASSERT_TRUE(test::eventually([&] { return processes("fake_worker").size() == 2; }));
  const auto heartbeat = run / "heartbeats/rank-0000";
  ASSERT_EQ(mkfifo(heartbeat.c_str(), 0600), 0);
  int held = -1;
  ASSERT_TRUE(test::eventually([&] { return (held = open(heartbeat.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0; }));
  std::filesystem::remove(heartbeat);
  ControlFolder(run / "control").ask(new_request(RequestKind::save));
  EXPECT_TRUE(test::eventually([&] { return processes("mpirun").empty(); }));
  kill(pid, SIGTERM);
  close(held);
  EXPECT_EQ(wait(), 0);
  EXPECT_EQ(attempts().back()["cause"], "done");
  EXPECT_EQ(events("signal"), 1);
}

// The disk was full, and who had asked was told that all was done.
TEST_F(SupervisorStops, AndTellsWhoAskedThatTheLastSaveFailed) {
  script("* * steps 3\n* * requested\n* 0 exit 74 the disk is full\n* 1 wait\n");
  start();
  ASSERT_TRUE(test::eventually([&] { return trains(3); }));
  const ControlFolder folder(run / "control");
  const auto request = new_request(RequestKind::stop);
  folder.ask(request);
  EXPECT_EQ(wait(), 75);
  const auto answer = folder.answer_to(request.id);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->outcome, "failed");
  EXPECT_THAT(answer->detail, AllOf(HasSubstr("rank 0: the disk is full"), HasSubstr("the run goes on from the start")));
}

TEST_F(SupervisorStops, WhileItWaitsBetweenTwoAttempts) {
  script("* 0 exit 70\n* 1 wait\n");
  const pid_t pid = start({"pause=30"});
  ASSERT_TRUE(test::eventually([&] { return events("restart") == 1; }));
  EXPECT_THAT(output(), HasSubstr("attempt 2 starts from the start in 30.0 s"));
  kill(pid, SIGTERM);
  EXPECT_EQ(wait(2), 75);
  EXPECT_EQ(attempts().size(), 1u);
}

TEST_F(SupervisorStops, AtOnceWhileTheRanksAreStarting) {
  script("* * silent\n* * hang\n");
  const pid_t pid = start();
  ASSERT_TRUE(test::eventually([&] { return processes("fake_worker").size() == 2; }));
  kill(pid, SIGINT);
  EXPECT_EQ(wait(3), 75);
  EXPECT_TRUE(nothing_lives());
}

TEST_F(SupervisorStops, WithoutBeingAskedWhenTheRanksLeaveWith75) {
  EXPECT_EQ(supervise("* * steps 1\n* * checkpoint\n* * exit 75\n"), 75);
  EXPECT_EQ(attempts().size(), 1u);
}

TEST_F(SupervisorStops, WhereAnotherLaunchersAttemptHasTakenOver) {
  EXPECT_EQ(supervise("* * steps 1\n* 0 exit 75 attempt 7 of this run has taken over\n* * hang\n"), 75);
  EXPECT_EQ(attempts().size(), 1u);
  EXPECT_THAT(output(), HasSubstr("stopped (rank 0: attempt 7 of this run has taken over); the run goes on"));
}

TEST_F(SupervisorStops, WhileItWaitsForRoomOnAFullDisk) {
  const test::SmallDisk disk(run);
  if (!disk.mounted()) GTEST_SKIP() << "no file system can be mounted here";
  script("* * steps 100000\n");
  const pid_t pid = start();
  ASSERT_TRUE(test::eventually([&] { return trains(3); }));
  disk.fill();
  for (const auto& [worker, command] : processes("fake_worker")) kill(worker, SIGKILL);
  ASSERT_TRUE(test::eventually([&] { return output().find("waiting for room") != std::string::npos; }));
  kill(pid, SIGTERM);
  EXPECT_EQ(wait(3), 75);
  disk.make_room();
}

}  // namespace
}  // namespace smlp
