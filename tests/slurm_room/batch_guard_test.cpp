// The step that watches the launcher's node, with a stand-in for SLURM.
#include "launcher/batch_guard.h"

#include <gmock/gmock.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

#include "core/clock.h"
#include "core/files.h"
#include "fake_programs.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::SizeIs;

class Guard : public testing::Test {
 protected:
  void SetUp() override {
    run.root = fakes.place / "run";
    std::filesystem::create_directory(run.root);
  }
  // scontrol: a file for each question about the node, in turn, the last one again and again; requeue by `requeue`.
  void slurm_says(const std::vector<std::string>& states, const std::string& requeue) {
    for (std::size_t i = 0; i < states.size(); ++i) {
      std::ofstream(fakes.place / ("state" + std::to_string(i))) << "NodeName=n1\n   State=" << states[i] << "\n";
    }
    const auto here = fakes.place.string();
    fakes.program("scontrol", "cd '" + here + "'; if [ $1 = requeue ]; then " + requeue + "; fi\n"
                              "asked=$(cat asked 2>/dev/null || echo 0); echo $((asked + 1)) > asked\n"
                              "while [ ! -e state$asked ]; do asked=$((asked - 1)); done; cat state$asked");
  }
  void ranks_serve_metrics() const { write_atomically(run.targets(), R"([{"targets":["n1:9100"],"labels":{}}])"); }
  void watch() { keep_guard({.run = run, .node = "n1", .job_id = "17", .look_seconds = 0.01, .silent_seconds = 0.2}, Controller()); }
  std::vector<std::string> events() const {
    std::vector<std::string> lines;
    std::istringstream text(test::file_contents(run.events()));
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }

  test::FakePrograms fakes;
  RunDirectory run;
};

TEST_F(Guard, RequeuesWhenTheLaunchersNodeIsDownForGood) {
  slurm_says({"ALLOCATED", "ALLOCATED+NOT_RESPONDING", "DOWN+NOT_RESPONDING", "ALLOCATED", "DOWN", "DOWN"}, "exit 0");
  watch();
  const auto calls = fakes.calls();
  ASSERT_THAT(calls, SizeIs(7)) << "one DOWN may be a slip: asked until two follow one another";
  EXPECT_EQ(calls.back(), "scontrol|requeue|17");
  ASSERT_THAT(events(), SizeIs(1));
  EXPECT_THAT(events()[0], AllOf(HasSubstr("launcher_lost"), HasSubstr("node n1"), HasSubstr("job 17")));
}

TEST_F(Guard, AsksNobodyWhileThePulseGoesOn) {
  slurm_says({"DOWN"}, "exit 0");
  const double began = monotonic_seconds();
  std::jthread launcher([&](std::stop_token stop) {
    for (int beat = 0; beat < 60 && !stop.stop_requested(); ++beat) {
      write_atomically(run.root / "launcher.pulse", std::to_string(beat));
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
  watch();
  EXPECT_GT(monotonic_seconds() - began, 0.6 + 0.2);
}

TEST_F(Guard, TriesAgainWhereSlurmWillNotRequeueYet) {
  slurm_says({"DOWN"}, "[ -e refused ] && exit 0; touch refused; echo 'Job is being completed' >&2; exit 1");
  watch();
  ASSERT_THAT(events(), SizeIs(2));
  EXPECT_THAT(events()[1], AllOf(HasSubstr("not_requeued"), HasSubstr("Job is being completed")));
}

class LauncherGuard : public Guard {
 protected:
  // The guard's exit code over a launcher that does this, as processes of their own.
  int over(const std::function<void()>& launcher) { return wait(start(launcher)); }
  pid_t start(const std::function<void()>& launcher) const {
    const pid_t guard = fork();
    if (guard != 0) return guard;
    alarm(60);
    const auto held = held_back();
    sigprocmask(SIG_BLOCK, &held, nullptr);  // as guard_this_launcher does
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      launcher();
      _exit(0);
    }
    const Allocation allocation{.job_id = "17", .nodes = {}, .array = Allocation::ArrayPlace{.job_id = "15", .task = 3}};
    _exit(guard_launcher({.run = run, .launcher = child, .allocation = allocation, .most_requeues = 1}, Controller()));
  }
  static int wait(pid_t guard) {
    int status = 0;
    waitpid(guard, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  void job_is(const std::string& state) {
    fakes.says("scontrol", "JobId=17 JobName=run\n   JobState=" + state + " Reason=None\n   PreemptTime=None\n");
  }
  static sigset_t held_back() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int number : {SIGUSR1, SIGTERM, SIGINT}) sigaddset(&signals, number);
    return signals;
  }
  static void be_killed() { raise(SIGKILL); }
};

// Once the job ended FAILED when its launcher was killed, as the kernel does it for want of memory.
TEST_F(LauncherGuard, HasTheJobRequeuedWhenALauncherIsKilledButNoOftenerThanAllowed) {
  job_is("RUNNING");
  EXPECT_EQ(over(be_killed), 75);
  EXPECT_THAT(fakes.calls(), testing::ElementsAre("scontrol|show|job|15_3", "scontrol|requeue|15_3"));
  ASSERT_THAT(events(), SizeIs(3));
  EXPECT_THAT(events()[0], AllOf(HasSubstr("launcher_lost"), HasSubstr("was killed by signal 9 (SIGKILL)")));
  EXPECT_THAT(events()[2], AllOf(HasSubstr("\"requeued\""), HasSubstr("job 15_3 is requeued")));
  EXPECT_EQ(over(be_killed), 137);
  EXPECT_THAT(fakes.calls(), SizeIs(2));
  EXPECT_THAT(events().back(), AllOf(HasSubstr("not_requeued"), HasSubstr("requeued 1 times after failures already")));
}

// Months of earlier jobs of the run had used up what a new one was allowed.
TEST_F(LauncherGuard, CountsTheFailuresOfItsOwnJob) {
  job_is("RUNNING");
  std::filesystem::create_directories(run.root);
  for (int earlier = 0; earlier < 3; ++earlier) {
    append_line(run.events(), R"({"event": "handed_over_after_failure", "attempt": 0, "detail": "job 9"})");
  }
  EXPECT_EQ(over(be_killed), 75);
  EXPECT_EQ(over(be_killed), 137);
}

// Once Prometheus went on asking whoever had got the ports of the ranks since.
TEST_F(LauncherGuard, LeavesNoAddressesOfTheRanksOfALauncherThatWasKilled) {
  job_is("RUNNING");
  ranks_serve_metrics();
  EXPECT_EQ(over(be_killed), 75);
  EXPECT_EQ(test::file_contents(run.targets()), "[]\n");
}

TEST_F(Guard, LeavesNoAddressesOfTheRanksOfALauncherWhoseNodeIsDown) {
  slurm_says({"DOWN"}, "grep -q targets run/targets.json && touch too-early; exit 0");
  ranks_serve_metrics();
  watch();
  EXPECT_EQ(test::file_contents(run.targets()), "[]\n");
  EXPECT_FALSE(std::filesystem::exists(fakes.place / "too-early")) << "requeueing ends the guard";
}

TEST_F(LauncherGuard, LeavesAJobThatWasCancelled) {
  job_is("CANCELLED");
  EXPECT_EQ(over(be_killed), 137);
  EXPECT_THAT(fakes.calls(), testing::ElementsAre("scontrol|show|job|15_3"));
}

TEST_F(LauncherGuard, EndsAsTheLauncherDoes) {
  for (const int code : {0, 70, 75}) EXPECT_EQ(over([&] { _exit(code); }), code);
  EXPECT_THAT(events(), testing::IsEmpty());
}

TEST_F(LauncherGuard, PassesSignalsOn) {
  for (const int number : {SIGUSR1, SIGTERM, SIGINT}) {
    const auto ready = fakes.place / ("ready" + std::to_string(number));
    const pid_t guard = start([&] {
      std::ofstream(ready) << "";
      int taken = 0;
      const auto held = held_back();
      sigwait(&held, &taken);
      _exit(100 + taken);
    });
    while (!std::filesystem::exists(ready)) sleep_seconds(0.005);
    kill(guard, number);
    EXPECT_EQ(wait(guard), 100 + number);
  }
}

}  // namespace
}  // namespace smlp
