// `smlp run` from the job file to the supervisor, with a fake worker (tests/launcher/fake_worker.cpp).
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "command_line.h"
#include "core/control_folder.h"
#include "core/json_lines.h"
#include "core/lock_holder.h"
#include "core/run_directory.h"
#include "tests/launcher/small_disk.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Run : public test::CommandLine {
 protected:
  void script(const std::string& text) {
    std::filesystem::create_directories(place / "runs/small");
    write("runs/small/script", text);
  }
  std::vector<std::string> events(const std::string& name) const {
    std::vector<std::string> details;
    read_json_lines(place / "runs/small/events.jsonl", [&](const nlohmann::json& event) {
      if (event["event"] == name) details.push_back(event["detail"]);
    });
    return details;
  }
  nlohmann::json identity() const { return nlohmann::json::parse(test::contents(place / "runs/small/run.json")); }
  bool wait_for(const std::string& path, double seconds = 10) const {
    for (const double end = monotonic_seconds() + seconds; monotonic_seconds() < end;) {
      if (std::filesystem::exists(place / path)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
};

TEST_F(Run, TrainsInTheFolderOfItsNameAndLeavesItsRecords) {
  script("* * steps 2\n* * checkpoint\n");
  const auto answer = smlp({"run", "job.toml"}, fake_worker());
  ASSERT_EQ(answer.code, 0) << answer.err << answer.out;
  EXPECT_THAT(answer.out, AllOf(HasSubstr("small: 2 ranks in runs/small, from the start"), HasSubstr("step 2/50")));
  EXPECT_THAT(test::contents(place / "runs/small/job.toml"), AllOf(HasSubstr("vocabulary = 320"), HasSubstr("group_sequences = 2")));
  EXPECT_EQ(identity()["name"], "small");
  EXPECT_EQ(identity()["fingerprint"].get<std::string>().size(), 32u);
  EXPECT_TRUE(identity()["versions"].contains("smlp"));
  const auto id = identity()["id"];

  const auto again = smlp({"run", "job.toml", "--set", "train.steps=60", "--set", "train.micro_batch=4", "--ranks", "1"},
                          fake_worker());
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("going on from checkpoint 2"));
  EXPECT_EQ(identity()["id"], id);
  EXPECT_THAT(test::contents(place / "runs/small/job.toml"),
              AllOf(HasSubstr("steps = 60"), HasSubstr("group_sequences = 2"), HasSubstr("micro_batch = 4")));
}

// Once it was cut after a hundred columns, before what is to be done about it.
TEST_F(Run, StatusTellsTheReasonOfTheLastEndToItsLastWord) {
  std::string reason = "the gradients of steps 41 to 45 are not finite, with the gradient of rank 0 (a.host.of.long.name): the "
                       "run goes back a checkpoint; if it comes to this again, lower optimizer.learning_rate";
  script("1 0 exit 70 " + reason + "\n1 1 wait\n* * steps 1\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);
  const auto screen = smlp({"status", "runs/small"}).out;
  std::string joined;
  std::istringstream lines(screen);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 100u) << line;
    joined += " " + line.substr(std::min(line.size(), line.find_first_not_of(' ')));
  }
  EXPECT_THAT(joined, HasSubstr("1 ended: rank 0: " + reason)) << screen;
}

// The ranks of a run that was over were said to be in a section, as if they were there.
TEST_F(Run, StatusOfARunThatIsOverPlacesNoRank) {
  std::filesystem::create_directories(place / "runs/small/heartbeats");
  for (const char* rank : {"0", "1"}) {
    write(std::string("runs/small/heartbeats/rank-000") + rank, "9 step 5 6592.6 2483 host 300.0 1 1 0 0 - -\n");
  }
  const std::string begun = "{\"event\":\"run_started\",\"attempt\":1}\n{\"event\":\"attempt_started\",\"attempt\":1}\n";
  write("runs/small/events.jsonl", begun + "{\"event\":\"done\",\"attempt\":1}\n");
  EXPECT_THAT(smlp({"status", "runs/small"}).out, HasSubstr("ranks       2, which have left\n"));
  write("runs/small/events.jsonl", begun);
  EXPECT_THAT(smlp({"status", "runs/small"}).out, HasSubstr("is in section 'step'")) << "where they were, without a last word";
}

// It was cut after a hundred columns: "exchange 75 % wai...".
TEST_F(Run, StatusTellsWhereAllTheSecondsWent) {
  std::filesystem::create_directories(place / "runs/small");
  write("runs/small/events.jsonl", "{\"event\":\"done\",\"attempt\":1}\n");
  write("runs/small/ledger.jsonl",
        R"({"time":1750000000,"highest_step":9,"goodput_seconds_total":{"productive":1000,"restart":1001,)"
        R"("checkpoint_stall":1002,"data_stall":1003,"exchange_wait":1004,"lost_work":1005,"waiting":1006}})" "\n");
  const auto screen = smlp({"status", "runs/small"}).out;
  EXPECT_THAT(screen, AllOf(HasSubstr("goodput     14 % of 1:57:01: productive 14 % "),
                            HasSubstr("\n            lost 14 % waiting 14 %\n")));
  std::istringstream lines(screen);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

TEST_F(Run, ItsAddressesAreForgottenWhenItHasEnded) {
  script("* * steps 2\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);
  EXPECT_EQ(test::contents(place / "runs/small/targets.json"), "[]\n");
}

TEST_F(Run, WhatNobodyIsThereToDoIsToldWithWhatToDoInstead) {
  script("* * steps 1\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);
  for (const char* command : {"stop", "save"}) {
    const auto answer = smlp({command, "runs/small"});
    EXPECT_EQ(answer.code, 75);
    EXPECT_THAT(answer.err, AllOf(HasSubstr("runs/small is not live, it is done (done: "),
                                  HasSubstr("): nobody is there to do it\n")));
  }
  write("runs/small/events.jsonl", "{\"event\":\"run_started\"}\n{\"event\":\"attempt_started\",\"attempt\":1}\n");
  for (const char* command : {"stop", "save"}) {
    const auto answer = smlp({command, "runs/small"});
    EXPECT_EQ(answer.code, 75);
    EXPECT_THAT(answer.err, HasSubstr("it is dead: nobody is there to do it; `smlp run` goes on\n"));
  }
}

// Once a requeued job that found its disk full had ended for good over its first file.
TEST_F(Run, InABatchJobWaitsForRoomOnAFullDiskBeforeItBegins) {
  script("* * steps 1\n");
  std::filesystem::create_directories(place / "runs/full");
  const test::SmallDisk disk(place / "runs/full");
  if (!disk.mounted()) GTEST_SKIP() << "no file system can be mounted here";
  disk.fill();
  const std::vector<std::pair<const char*, const char*>> batch = {
      {"SLURM_JOB_ID", "17"}, {"SLURM_JOB_NODELIST", "n1"}, {"SLURM_JOB_CPUS_PER_NODE", "2"}, {"ENVIRONMENT", "BATCH"}};
  for (const auto& [name, value] : batch) setenv(name, value, 1);
  const auto job = start({"run", "job.toml", "--run-dir", "runs/full", "--set", "cluster.launcher=local"}, fake_worker());
  for (const auto& [name, value] : batch) unsetenv(name);
  const std::string waits = "runs/full is full (No space left on device): waiting for room";
  for (const double end = monotonic_seconds() + 30; monotonic_seconds() < end;) {
    if (test::contents(place / "err").find(waits) != std::string::npos) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(waitpid(job, nullptr, WNOHANG), 0) << "it has given up";
  disk.make_room();
  const auto answer = finish(job);
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.err, HasSubstr(waits));
}

// Once `status` waited for whoever would write into it.
TEST_F(Run, StatusAndCompareDoNotWaitForAJobFileThatIsAPipe) {
  script("* * steps 1\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);
  std::filesystem::remove(place / "runs/small/job.toml");
  ASSERT_EQ(mkfifo((place / "runs/small/job.toml").c_str(), 0600), 0);
  for (const char* command : {"status", "compare"}) {
    const auto waiting = start({command, "runs/small"});
    int status = 0;
    const auto over = [&] { return waitpid(waiting, &status, WNOHANG) == waiting; };
    bool ended = false;
    for (const double end = monotonic_seconds() + 10; !(ended = over()) && monotonic_seconds() < end;) sleep_seconds(0.01);
    EXPECT_TRUE(ended && WEXITSTATUS(status) == 0) << command;
    if (!ended) kill(waiting, SIGKILL);
  }
}

TEST_F(Run, RefusesAJobThatIsNotThatOfItsCheckpoints) {
  script("* * steps 2\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);
  ASSERT_EQ(smlp({"run", "job.toml", "--set", "model.width=16"}, fake_worker()).code, 0) << "no checkpoint yet: free";
  script("* * steps 2\n* * checkpoint\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);

  const std::vector<std::string> changed = {"run", "job.toml", "--set", "model.width=16", "--set", "seed=2"};
  const auto refused = smlp(changed, fake_worker());
  EXPECT_EQ(refused.code, 78);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("--set model.width=16: model.width = 16, but the run has 8"),
                                 HasSubstr("seed = 2, but the run has 1"), HasSubstr("--accept-change seed")));
  auto half = changed;
  half.insert(half.end(), {"--accept-change", "seed"});
  EXPECT_EQ(smlp(half, fake_worker()).code, 78) << "one of two was accepted";
  half.insert(half.end(), {"--accept-change", "model.width"});
  EXPECT_EQ(smlp(half, fake_worker()).code, 0);
  EXPECT_THAT(events("change_accepted"), testing::ElementsAre("seed: 1 becomes 2", "model.width: 8 becomes 16"));
  EXPECT_EQ(identity()["accepted_changes"].size(), 2u);
  EXPECT_EQ(smlp({"run", "job.toml", "--accept-change", "model.widht"}, fake_worker()).code, 78);
}

// A user's own, with comments, was overwritten by the resolved one.
TEST_F(Run, KeepsAJobFileThatLayWhereTheResolvedOneGoes) {
  script("* * steps 2\n");
  const auto given = "# mine\n" + test::contents(place / "job.toml");
  write("runs/small/job.toml", given);
  const auto answer = smlp({"run", "runs/small/job.toml"}, fake_worker());
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.err, HasSubstr("kept as runs/small/job.given.toml"));
  EXPECT_EQ(test::contents(place / "runs/small/job.given.toml"), given);
  EXPECT_THAT(test::contents(place / "runs/small/job.toml"), HasSubstr("vocabulary = 320"));
  EXPECT_EQ(smlp({"run", "runs/small/job.toml"}, fake_worker()).err.find("job.given.toml"), std::string::npos) << "once";

  std::filesystem::remove(place / "runs/small/run.json");
  write("runs/small/job.toml", "# another\n" + given);
  const auto refused = smlp({"run", "runs/small/job.toml"}, fake_worker());
  EXPECT_EQ(refused.code, 78);
  EXPECT_THAT(refused.err, HasSubstr("another one kept before"));
}

TEST_F(Run, KeepsWhatItOnceDerived) {
  script("* * steps 2\n* * checkpoint\n");
  ASSERT_EQ(smlp({"run", "job.toml", "--set", "schedule.kind=cosine", "--set", "schedule.warmup_steps=5"}, fake_worker()).code, 0);
  const auto longer = smlp({"run", "job.toml", "--set", "schedule.kind=cosine", "--set", "schedule.warmup_steps=5", "--set",
                            "train.steps=500"}, fake_worker());
  EXPECT_EQ(longer.code, 0) << longer.err;
  EXPECT_THAT(test::contents(place / "runs/small/job.toml"), HasSubstr("decay_steps = 50\n"));
  EXPECT_THAT(longer.err, AllOf(HasSubstr("the run's cosine ends at step 50: steps 51 to 500 train at schedule.minimum_rate = 0."),
                                HasSubstr("--set schedule.decay_steps=500 --accept-change schedule.decay_steps")));
  // Once refused as what a new run could not do.
  const auto shorter = smlp({"run", "job.toml", "--set", "schedule.kind=cosine", "--set", "schedule.warmup_steps=5", "--set",
                             "train.steps=4"}, fake_worker());
  EXPECT_EQ(shorter.code, 0) << shorter.err;
  EXPECT_THAT(shorter.err, Not(HasSubstr("cosine")));
}

TEST_F(Run, RefusesBeforeAnyRankStarts) {
  const auto answer = smlp({"run", "job.toml", "--set", "data.train=[\"absent\"]"}, fake_worker());
  EXPECT_EQ(answer.code, 78);
  EXPECT_FALSE(std::filesystem::exists(place / "runs"));
}

// A refused start once left a folder with locks behind, and an empty --init-from meant none.
TEST_F(Run, ARefusedStartLeavesNothing) {
  const std::vector<std::pair<std::vector<std::string>, int>> table = {
      {{"--init-from", "nowhere"}, 78},          {{"--init-from", ""}, 64},        {{"--run-dir", ""}, 64},
      {{"--accept-change", "model.widht"}, 78},  {{"--set", "model.width=7"}, 78},
  };
  for (const auto& [words, code] : table) {
    std::vector<std::string> command = {"run", "job.toml"};
    command.insert(command.end(), words.begin(), words.end());
    const auto answer = smlp(command, fake_worker());
    EXPECT_EQ(answer.code, code) << words.front() << answer.err;
    EXPECT_FALSE(std::filesystem::exists(place / "runs")) << words.front();
  }
}

TEST_F(Run, AFolderThatCannotBeMadeIsToldInASentence) {
  for (const std::string path : {"job.toml", "job.toml/run", "/proc/run"}) {
    const auto answer = smlp({"run", "job.toml", "--run-dir", path}, fake_worker());
    EXPECT_EQ(answer.code, 74) << path;
    EXPECT_THAT(answer.err, AllOf(HasSubstr("the run directory " + path + " can't be made: "), HasSubstr("another --run-dir")));
  }
}

// It left with 243, mpirun's own code, of which docs/running.md knows nothing, and pointed at a log.
TEST_F(Run, WhatMpirunSaysWhereItStartsNothingIsToldWithACodeOfOurs) {
  std::filesystem::create_directory(place / "bin");
  write("bin/mpirun", "#!/bin/sh\necho 'the agent ssh : rsh' >&2\necho 'could not be found' >&2\nexit 243\n");
  std::filesystem::permissions(place / "bin/mpirun", std::filesystem::perms::owner_all);
  const std::string path = std::getenv("PATH");
  setenv("PATH", ((place / "bin").string() + ":" + path).c_str(), 1);
  const auto answer = smlp({"run", "job.toml", "--max-restarts", "0"}, fake_worker());
  setenv("PATH", path.c_str(), 1);
  EXPECT_EQ(answer.code, 70) << answer.err;
  EXPECT_THAT(answer.err, HasSubstr("mpirun ended with exit code 243: the agent ssh : rsh could not be found; its words are in "));
}

TEST_F(Run, GivesUpAfterTheRestartsThatWereAllowed) {
  script("* * steps 1\n* 1 exit 70\n");
  const auto answer = smlp({"run", "job.toml", "--max-restarts", "0"}, fake_worker());
  EXPECT_EQ(answer.code, 70) << answer.out;
  EXPECT_THAT(answer.err, HasSubstr("0 restarts were allowed"));
}

TEST_F(Run, IsAloneInItsFolderAndStopsOnRequest) {
  script("* * steps 100000\n");
  const pid_t first = start({"run", "job.toml"}, fake_worker());
  ASSERT_TRUE(wait_for("runs/small/metrics.jsonl"));
  const auto second = smlp({"run", "job.toml", "--run-dir", "./runs/small"}, fake_worker());
  EXPECT_EQ(second.code, 75);
  EXPECT_THAT(second.err, HasSubstr("in use by process " + std::to_string(first)));
  ASSERT_TRUE(wait_for("runs/small/heartbeats/rank-0001"));
  ASSERT_TRUE(wait_for("runs/small/heartbeats/rank-0000"));
  kill(first, SIGTERM);
  EXPECT_EQ(finish(first, 5).code, 75);
  EXPECT_EQ(events("stopped").size(), 1u);
}

TEST_F(Run, TakesItsPlaceWhenTheLastHolderWasKilled) {
  script("1 * steps 100000\n2 * steps 1\n");
  const pid_t first = start({"run", "job.toml"}, fake_worker());
  ASSERT_TRUE(wait_for("runs/small/metrics.jsonl"));
  kill(first, SIGKILL);
  finish(first);
  const auto second = smlp({"run", "job.toml"}, fake_worker());
  EXPECT_EQ(second.code, 0) << second.err;
}

// A start throws away what was asked before it: who asked was told that the request stays.
TEST_F(Run, WhatIsAskedOfARunThatIsOnlyJustBeginningIsToBeAskedAgain) {
  script("* * steps 2\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);
  const RunDirectory run{place / "runs/small"};
  auto lock = FileLock::try_lock(run.launcher_lock(), FileLock::Kind::exclusive);
  write_holder(lock);
  const auto asked = start({"stop", "runs/small", "--timeout", "60"});
  ControlFolder control(run.control());
  for (const double end = monotonic_seconds() + 30; control.requests().empty() && monotonic_seconds() < end;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(control.discard().size(), 1u);
  const auto answer = finish(asked);
  EXPECT_EQ(answer.code, 75);
  EXPECT_THAT(answer.err, HasSubstr("runs/small is only just beginning, and hears nothing yet: ask again"));
  std::filesystem::remove_all(run.control());
  const auto first = smlp({"save", "runs/small"});
  EXPECT_EQ(first.code, 75);
  EXPECT_THAT(first.err, HasSubstr("ask again"));
}

TEST_F(Run, LogsAreShownByRankAndFollowedThroughRestarts) {
  for (int attempt : {1, 2}) {
    for (int rank : {0, 1}) {
      const auto folder = "runs/small/logs/attempt-000" + std::to_string(attempt);
      std::filesystem::create_directories(place / folder);
      write(folder + "/rank-000" + std::to_string(rank) + ".log",
            "attempt " + std::to_string(attempt) + " rank " + std::to_string(rank) + "\n");
    }
  }
  EXPECT_EQ(smlp({"logs", "runs/small"}).out, "attempt 2 rank 0\n");
  EXPECT_EQ(smlp({"logs", "runs/small", "--rank", "1", "--attempt", "1"}).out, "attempt 1 rank 1\n");
  EXPECT_EQ(smlp({"logs", "runs/small", "--follow"}).out, "attempt 2 rank 0\n") << "nobody runs: it ends";
  const auto absent = smlp({"logs", "runs/small", "--rank", "5"});
  EXPECT_EQ(absent.code, 78);
  EXPECT_THAT(absent.err, HasSubstr("there are ranks 0 to 1"));
  EXPECT_EQ(smlp({"logs", "runs/small", "--rank", "5", "--follow"}).code, 78) << "once it printed nothing, with code 0";
  std::filesystem::create_directory(place / "runs/small/logs/attempt-0002/rank-0003.log");
  const auto unreadable = smlp({"logs", "runs/small", "--rank", "3"});
  EXPECT_EQ(unreadable.code, 74);
  EXPECT_THAT(unreadable.err, HasSubstr("rank-0003.log failed: Is a directory"));
  const auto later = smlp({"logs", "runs/small", "--attempt", "9"});
  EXPECT_EQ(later.code, 78);
  EXPECT_THAT(later.err, HasSubstr("has no attempt 9; the newest is 2"));
  EXPECT_EQ(smlp({"logs", "nowhere"}).code, 78);
}

// A copied run goes on counting where the other had come to: it was called no run directory.
TEST_F(Run, LogsAreFoundWhereTheFirstAttemptsHaveNone) {
  for (const std::string attempt : {"0008", "0010"}) {
    std::filesystem::create_directories(place / ("runs/small/logs/attempt-" + attempt));
    write("runs/small/logs/attempt-" + attempt + "/rank-0000.log", "of " + attempt + "\n");
  }
  EXPECT_EQ(smlp({"logs", "runs/small"}).out, "of 0010\n");
  EXPECT_EQ(smlp({"logs", "runs/small", "--attempt", "8"}).out, "of 0008\n");
  EXPECT_EQ(smlp({"logs", "runs/small", "--follow"}).out, "of 0010\n");
}

// It was called dead afterwards: launcher gone without a word.
TEST_F(Run, AJobThatHasNoPlaceHereIsRefusedBeforeItsRunBegins) {
  unsetenv("SLURM_JOB_ID");
  const auto answer = smlp({"run", "job.toml", "--set", "cluster.launcher=\"srun\""}, fake_worker());
  EXPECT_EQ(answer.code, 69);
  EXPECT_THAT(answer.err, HasSubstr("starts ranks in a SLURM allocation"));
  EXPECT_EQ(answer.out, "");
  EXPECT_FALSE(std::filesystem::exists(place / "runs/small/job.toml"));
  EXPECT_FALSE(std::filesystem::exists(place / "runs/small/events.jsonl"));
}

TEST_F(Run, APipeInPlaceOfWhoTheRunIsHoldsUpNothing) {
  script("* * steps 1\n");
  ASSERT_EQ(mkfifo((place / "runs/small/run.json").c_str(), 0644), 0);
  const auto answer = smlp({"run", "job.toml"}, fake_worker());
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(identity()["name"], "small");
}

}  // namespace
}  // namespace smlp
