// The step that watches the launcher's node, with a stand-in for SLURM.
#include "launcher/batch_guard.h"

#include <gmock/gmock.h>

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

}  // namespace
}  // namespace smlp
