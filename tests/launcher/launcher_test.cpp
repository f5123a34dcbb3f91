// The launcher's parts without processes: metrics followed, history kept, runs looked at.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/verdict.h"
#include "launcher/metrics_tail.h"
#include "launcher/progress_line.h"
#include "launcher/run_history.h"
#include "launcher/run_lock.h"
#include "launcher/run_setup.h"
#include "launcher/run_status.h"
#include "launcher/targets.h"
#include "tests/launcher/run_folder.h"

namespace smlp {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class Launcher : public test::RunFolder {
 protected:
  void SetUp() override {
    test::RunFolder::SetUp();
    std::filesystem::create_directories(run.heartbeats());
  }

  void beat(int rank, int step, int sequence, double limit, const char* section = "step", int attempt = 1) {
    beat(rank, fmt::format("{} {} {} 12.5 4242 elsewhere {:.3f} {} {} {} 0 world:barrier:7 1:forward", step, section,
                           sequence, limit, attempt, ++pulse, sequence));
  }
  void beat(int rank, const std::string& words) { write_atomically(run.heartbeat(rank), fmt::format("{:<255}\n", words)); }
  int pulse = 0;
};

TEST(Verdicts, AreReadAsTheyWereWrittenAndDamageIsNone) {
  const auto file = std::filesystem::path(testing::TempDir()) / fmt::format("smlp-verdict-{}", getpid());
  EXPECT_FALSE(read_verdict(file));
  write_verdict(file, {.stop = true, .budgeted = true, .not_after = 41, .reason = "a spike"});
  const auto read = read_verdict(file);
  ASSERT_TRUE(read);
  EXPECT_TRUE(read->stop && read->budgeted);
  EXPECT_EQ(read->not_after, 41);
  EXPECT_EQ(read->reason, "a spike");
  for (const char* damage : {"", "{", "[1]", "{\"stop\":true}", "{\"not_after\":-3}"}) {
    write_atomically(file, damage);
    EXPECT_FALSE(read_verdict(file)) << damage;
  }
  std::filesystem::remove(file);
}

// What a rewind costs was told as the whole attempt, where the checkpoint lay before the newest.
TEST_F(Launcher, KnowsTheSecondsSinceTheCheckpointBeforeTheNewest) {
  MetricsTail tail(run.metrics());
  tail.begin_attempt(1, 0);
  for (int step = 1; step <= 9; ++step) {
    append_line(run.metrics(), fmt::format(R"({{"attempt":1,"step":{},"checkpoint_last_step":{}}})", step, step / 3 * 3));
    tail.read(100 + step);
  }
  EXPECT_DOUBLE_EQ(tail.seconds_since(6), 3);
}

// A terminal that was stopped (Ctrl-S), or a full pipe, left a run without its supervisor.
TEST(Progress, WaitsForNobodyThatReads) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_NONBLOCK), 0);
  const std::string much(4096, '.');
  std::int64_t filled = 0;
  for (ssize_t taken = 0; (taken = write(ends[1], much.data(), much.size())) > 0;) filled += taken;
  fcntl(ends[1], F_SETFL, 0);  // writing waits from here on
  std::FILE* out = fdopen(ends[1], "w");
  const JobConfig job;
  std::string read_on;
  {
    ProgressLine line(job, out);
    alarm(20);
    for (int i = 0; i < 1000; ++i) line.note("a restart");
    line.show({.step = 1}, 10);
    std::string all(static_cast<std::size_t>(filled), ' ');
    ASSERT_EQ(read(ends[0], all.data(), all.size()), filled);
    line.note("the end");
    std::array<char, 1 << 16> rest{};
    for (ssize_t got = 0; (got = read(ends[0], rest.data(), rest.size())) > 0;) read_on.append(rest.data(), static_cast<std::size_t>(got));
    alarm(0);
  }
  EXPECT_THAT(read_on, testing::StartsWith("a restart\n"));
  EXPECT_THAT(read_on, testing::EndsWith("the end\n"));
  EXPECT_THAT(read_on, testing::Not(HasSubstr("step 1/"))) << "progress is of the moment";
  fclose(out);
  close(ends[0]);
}

TEST_F(Launcher, ALossThatIsNotFiniteIsNotTheOneBefore) {
  append_line(run.metrics(), R"({"attempt":1,"step":1,"loss":6.5})");
  append_line(run.metrics(), R"({"attempt":1,"step":2,"loss":null})");
  EXPECT_EQ(read_status(run).step, 2);
  EXPECT_FALSE(read_status(run).loss);
}

TEST_F(Launcher, FollowsMetricsLineByLine) {
  append_line(run.metrics(), R"({"attempt":1,"step":7,"loss":9})");
  MetricsTail tail(run.metrics());
  tail.begin_attempt(1, 10);
  EXPECT_FALSE(tail.read(10)) << "what earlier starts wrote is not ours";
  append_line(run.metrics(), R"({"attempt":1,"step":8,"loss":3.5,"checkpoint_last_step":7,"flops_share":null})");
  {
    std::ofstream half(run.metrics(), std::ios::app);
    half << R"({"attempt":1,"step":9,)";
  }
  EXPECT_TRUE(tail.read(11));
  EXPECT_EQ(tail.newest()->step, 8);
  EXPECT_EQ(tail.newest()->loss, 3.5);
  EXPECT_FALSE(tail.newest()->flops_share);
  append_line(run.metrics(), R"("loss":3.25})");
  append_line(run.metrics(), R"({"attempt":1,"step":10})");
  EXPECT_TRUE(tail.read(14));
  EXPECT_EQ(tail.newest()->step, 10);
  EXPECT_EQ(tail.first_step(), 8);
  EXPECT_DOUBLE_EQ(tail.seconds_since(8), 3);
  EXPECT_DOUBLE_EQ(tail.seconds_since(7), 4) << "from the start of the attempt";
  append_line(run.metrics(), "no json");
  append_line(run.metrics(), R"({"attempt":1,"loss":1})");
  EXPECT_FALSE(tail.read(15));
}

// A number that no step can have was made one of 64 bits.
TEST_F(Launcher, TakesNoNumberOfMetricsForAStepThatIsNone) {
  MetricsTail tail(run.metrics());
  tail.begin_attempt(1, 10);
  append_line(run.metrics(), R"({"attempt":1,"step":8,"loss":1e300,"checkpoint_last_step":1e300,)"
                             R"("local_checkpoint_last_step":-1e300})");
  EXPECT_TRUE(tail.read(11));
  EXPECT_EQ(tail.newest()->loss, 1e300);
  EXPECT_FALSE(tail.newest()->checkpoint_step);
  EXPECT_FALSE(tail.newest()->local_step);
  append_line(run.metrics(), R"({"attempt":1,"step":1e300})");
  append_line(run.metrics(), R"({"attempt":1,"step":18446744073709551615})");
  EXPECT_FALSE(tail.read(12));
  EXPECT_EQ(tail.newest()->step, 8);
}

// A rank 0 that was cut off and trained on, or lines that a slow disk showed late, were taken for the next attempt's steps.
TEST_F(Launcher, TakesNoMetricsOfAnotherAttempt) {
  MetricsTail tail(run.metrics());
  tail.begin_attempt(2, 10);
  append_line(run.metrics(), R"({"attempt":1,"step":90,"loss":3})");
  append_line(run.metrics(), R"({"step":91,"loss":3})");
  EXPECT_FALSE(tail.read(11));
  EXPECT_FALSE(tail.newest());
  append_line(run.metrics(), R"({"attempt":2,"step":51,"loss":4})");
  append_line(run.metrics(), R"({"attempt":1,"step":92,"loss":3})");
  EXPECT_TRUE(tail.read(12));
  EXPECT_EQ(tail.first_step(), 51);
  EXPECT_EQ(tail.newest()->step, 51);
}

TEST(Progress, SaysWhatARunIsDoing) {
  JobConfig job;
  job.train.steps = 400;
  StepFacts facts{.step = 120, .loss = 3.2142, .validation_loss = 3.5, .tokens_per_second = 12345, .flops_share = 0.412,
                  .expert_balance = 1.02, .checkpoint_step = 100, .checkpoint_time = 1000};
  EXPECT_EQ(progress_text(facts, job, 1003),
            "step 120/400  loss 3.214  valid 3.500  12.3k tokens/s  41 % of peak  balance 1.02  checkpoint 100 (0:03 "
            "ago)  0:46 left");
  EXPECT_EQ(progress_text({.step = 1}, job, 0), "step 1/400  no checkpoint yet");
}

// `smlp run job.toml > log` on the disk that was full ended the run over its own line.
TEST(Progress, AFullDiskUnderTheOutputEndsNothing) {
  std::FILE* full = std::fopen("/dev/full", "w");
  if (full == nullptr) GTEST_SKIP() << "there is no /dev/full";
  std::setvbuf(full, nullptr, _IONBF, 0);
  const JobConfig job;
  {
    ProgressLine line(job, full);
    EXPECT_NO_THROW(line.show({.step = 1}, 0));
    EXPECT_NO_THROW(line.note("a sentence"));
    EXPECT_NO_THROW(line.finish({.step = 2}));
  }
  std::fclose(full);
}

TEST_F(Launcher, NumbersAttemptsOnAndTellsOfOneWhoseLauncherDied) {
  RunHistory history(run);
  std::filesystem::remove_all(run.root / "logs");
  EXPECT_EQ(history.begin_attempt(), 1);
  std::filesystem::create_directories(run.log_folder(1));
  EXPECT_EQ(history.begin_attempt(), 2);
  EXPECT_EQ((*history.last_attempt())["cause"], "launcher");
  EXPECT_TRUE((*history.last_attempt())["first_step"].is_null()) << "it did none";
  history.append({.attempt = 2, .ranks = 4, .exit_code = 137, .cause = "signal", .reason = "r"});
  append_line(run.attempts(), "{half a li");
  std::filesystem::create_directories(run.log_folder(2));
  EXPECT_EQ(history.begin_attempt(), 3);
  EXPECT_EQ((*history.last_attempt())["ranks"], 4);
  EXPECT_TRUE((*history.last_attempt())["first_step"].is_null());
  for (const auto* line : {R"({"step":4,"attempt":2})", R"({"step":3,"attempt":3})", R"({"step":4,"attempt":3})",
                           R"({"step":5,"attempt":3})", R"({"step":6,"atte)"}) {
    append_line(run.metrics(), line);
  }
  std::filesystem::create_directories(run.log_folder(3));
  EXPECT_EQ(history.begin_attempt(), 4);
  EXPECT_EQ((*history.last_attempt())["first_step"], 3);
  EXPECT_EQ((*history.last_attempt())["last_step"], 5);
}

// Gigabytes of steps were read from the first on, and the allocation waited.
TEST_F(Launcher, OfALongAttemptThatWasLostTheEndAndTheStartAreEnough) {
  RunHistory history(run);
  append_line(run.events(), R"({"event":"start","attempt":1,"step":0})");
  std::ofstream metrics(run.metrics());
  for (int step = 1; step <= 60; ++step) {
    metrics << R"({"attempt":1,"step":)" << step << R"(,"blocks":")" << std::string(100'000, '-') << "\"}\n";
  }
  metrics.close();
  std::filesystem::create_directories(run.log_folder(1));
  EXPECT_EQ(history.begin_attempt(), 2);
  EXPECT_EQ((*history.last_attempt())["first_step"], 1);
  EXPECT_EQ((*history.last_attempt())["last_step"], 60);
}

TEST_F(Launcher, PassesOverAttemptsThatCanNotHaveBeen) {
  RunHistory history(run);
  history.append({.attempt = 2, .ranks = 4, .exit_code = 137, .cause = "signal", .reason = "r"});
  for (const char* number : {"2147483647", "4294967299", "1000000", "-7", "3.5"}) {
    append_line(run.attempts(), fmt::format(R"({{"attempt":{},"cause":"signal"}})", number));
    append_line(run.events(), fmt::format(R"({{"attempt":{},"event":"start"}})", number));
  }
  for (const char* name : {"attempt-2147483647", "attempt-4294967299", "attempt--7", "attempt-+7", "attempt-"}) {
    std::filesystem::create_directories(run.root / "logs" / name);
  }
  std::filesystem::create_directories(run.checkpoints());
  write_durably(run.checkpoints() / fence_name, "4294967299\n");
  EXPECT_EQ(history.begin_attempt(), 3);
  EXPECT_EQ(history.last_to_choose(), std::nullopt);
}

TEST_F(Launcher, PassesOverLinesWhoseValuesHaveAnotherType) {
  RunHistory history(run);
  history.append({.attempt = 2, .ranks = 4, .exit_code = 137, .cause = "signal", .reason = "r"});
  append_line(run.attempts(), R"({"attempt":"x","cause":3})");
  EXPECT_EQ((*history.last_attempt())["attempt"], 2);
  history.event("recovered", 2, 7, "");
  append_line(run.events(), R"({"event":3,"detail":"recovered"})");
  EXPECT_EQ(history.count_events("recovered"), 1);
}

TEST_F(Launcher, NumbersAttemptsAboveTheFenceOfCopiedCheckpoints) {
  std::filesystem::create_directories(run.checkpoints());
  std::filesystem::remove_all(run.root / "logs");
  const auto first_after = [&](const std::string& fence) {
    write_atomically(run.checkpoints() / fence_name, fence);
    return RunHistory(run).begin_attempt();
  };
  EXPECT_EQ(first_after("7\n"), 8);
  for (const auto* damaged : {"", "x", "-4\n", "2147483647\n", "99999999999999999999\n"}) {
    EXPECT_EQ(first_after(damaged), 1) << damaged;
  }
}

// The logs of a copied run begin where the other run ended, and old ones may be removed by hand: `status` knew of none.
TEST_F(Launcher, FindsTheNewestLogsWhereTheFirstAreGone) {
  std::filesystem::remove_all(run.logs());
  EXPECT_EQ(newest_attempt(run), 0);
  EXPECT_EQ(read_status(run).logs, run.logs());
  std::filesystem::create_directories(run.log_folder(8));
  std::filesystem::create_directories(run.log_folder(11));
  std::filesystem::create_directories(run.logs() / "attempt-12");
  write_atomically(run.guard_log(), "");
  EXPECT_EQ(newest_attempt(run), 11);
  EXPECT_EQ(read_status(run).logs, run.log_folder(11));
}

TEST_F(Launcher, StatusPassesOverALoopInPlaceOfTheLogs) {
  std::filesystem::remove_all(run.logs());
  std::filesystem::create_symlink("logs", run.logs());
  EXPECT_NO_THROW(read_status(run));
}

// For half a minute after its end a run was `waiting` or `stopping` to every other host.
TEST_F(Launcher, ARunThatHasEndedElsewhereIsNotLiveForItsLastPulse) {
  write_atomically(run.launcher_lock(), R"({"host":"elsewhere","pid":4242})");
  beat(0, 20, 40, 15);
  RunHistory history(run);
  const auto state_after = [&](const char* event, int attempt = 1) {
    history.event(event, attempt, 20, event);
    return read_status(run).state;
  };
  state_after("run_started", 0);
  EXPECT_EQ(state_after("attempt_started"), "running");
  state_after("stopped");
  EXPECT_TRUE(is_live(run)) << "rank 0 alone has said that";
  state_after("attempt_ended");
  EXPECT_TRUE(is_live(run)) << "the next attempt may follow";
  EXPECT_EQ(state_after("stopped"), "stopped");
  EXPECT_FALSE(is_live(run));
  EXPECT_EQ(state_after("requeued"), "waiting");
  EXPECT_FALSE(is_live(run));
  state_after("run_started", 0);
  EXPECT_TRUE(is_live(run)) << "another launcher holds it now";
  EXPECT_EQ(state_after("attempt_started", 2), "running");
  EXPECT_EQ(state_after("launcher_lost", 0), "waiting");
  EXPECT_EQ(state_after("not_requeued", 0), "dead");
  state_after("run_started", 0);
  EXPECT_EQ(state_after("attempt_started", 3), "running");
  state_after("attempt_ended", 3);
  EXPECT_EQ(state_after("done", 3), "done");
}

// Once the first heartbeat that was missing hid all ranks after it.
TEST_F(Launcher, StatusKnowsTheRanksBehindOneThatHasNoHeartbeat) {
  for (const int rank : {0, 2, 12345}) beat(rank, 20, 40, 15);
  for (const char* other : {"rank-3", "rank-0004.tmp", "rank-99999999999", "ra", "rank-000x"}) {
    write_atomically(run.heartbeats() / other, read_text(run.heartbeat(0)));
  }
  std::vector<int> ranks;
  for (const auto& place : read_status(run).ranks) ranks.push_back(place.rank);
  EXPECT_THAT(ranks, ElementsAre(0, 2, 12345));
}

// Only the last 4 MiB were read: a run that had trained for long was `waiting`, with no attempt at all.
// A file that the disk did not let the launcher take away showed a rank where it was no more.
TEST_F(Launcher, StatusPassesOverHeartbeatsOfAnEarlierAttempt) {
  std::filesystem::create_directories(run.log_folder(2));
  beat(0, 7, 7, 60, "step", 2);
  beat(1, 3, 3, 60, "step", 1);
  const auto places = read_places(run);
  ASSERT_EQ(places.size(), 1u);
  EXPECT_EQ(places[0].rank, 0);
}

TEST_F(Launcher, StatusKnowsTheWholeOfALongRun) {
  write_atomically(run.launcher_lock(), R"({"host":"elsewhere","pid":4242})");
  beat(0, 20, 40, 15);
  std::string events = R"({"event":"run_started","attempt":0})" "\n" R"({"event":"attempt_started","attempt":1})" "\n";
  const auto line = fmt::format(R"({{"event":"checkpoint_published","attempt":1,"detail":"{}"}})" "\n", std::string(4000, 'x'));
  while (events.size() < 5u << 20) events += line;
  write_atomically(run.events(), events);
  EXPECT_EQ(read_status(run).state, "running");
  EXPECT_EQ(read_status(run).attempts, 1);
  std::string attempts;
  constexpr int many = 20000;
  for (int number = 1; number <= many; ++number) {
    attempts += fmt::format(R"({{"attempt":{},"cause":"signal","reason":"{}"}})" "\n", number, std::string(250, 'x'));
  }
  write_atomically(run.attempts(), attempts);
  EXPECT_EQ(read_status(run).attempts, many);
  EXPECT_EQ(read_status(run).restarts, many - 1);
}

// Prometheus stored the metrics of the next run on the same port as those of one that had ended.
TEST_F(Launcher, TheAddressesOfAnEndedRunAreForgotten) {
  forget_targets(run);
  EXPECT_FALSE(std::filesystem::exists(run.targets())) << "there were none";
  write_atomically(run.targets(), R"([{"targets":["n1:9100"],"labels":{"run":"demo"}}])");
  forget_targets(run);
  EXPECT_EQ(read_if_there(run.targets()), "[]\n");
  std::filesystem::remove_all(run.root);
  EXPECT_NO_THROW(forget_targets(run));
}

TEST_F(Launcher, APipeInPlaceOfTheTargetsHoldsUpNobody) {
  write_atomically(run.targets(), R"([7,{"targets":"n0:1"},{"targets":[]},{"targets":[3,"n1:9100","n2:9100"]}])");
  EXPECT_EQ(first_target(run), "n1:9100");
  std::filesystem::remove(run.targets());
  ASSERT_EQ(mkfifo(run.targets().c_str(), 0644), 0);
  EXPECT_EQ(first_target(run), "");
}

TEST_F(Launcher, TakesNoFolderForACheckpointThatHasAnotherName) {
  std::filesystem::create_directories(run.checkpoint(50));
  write_atomically(run.manifest(50), "{}");
  for (const char* name : {"step-050", "step-60"}) {
    std::filesystem::create_directories(run.checkpoints() / name);
    write_atomically(run.checkpoints() / name / "manifest.json", "{}");
  }
  EXPECT_THAT(RunHistory(run).published_steps(), ElementsAre(50));
}

TEST_F(Launcher, SeesPublishedCheckpointsAlone) {
  for (const char* name : {"step-00000050", "step-00000100", "step-00000150.attempt-0001.tmp", "step-00000200.rejected",
                           "step_00000250.tmp", "other"}) {
    std::filesystem::create_directories(run.checkpoints() / name);
    write_atomically(run.checkpoints() / name / "manifest.json", "{}");
  }
  std::filesystem::create_directories(run.checkpoints() / "step-00000300");
  RunHistory history(run);
  EXPECT_THAT(history.published_steps(), ElementsAre(50, 100));
  EXPECT_EQ(history.newest_step(), 100);
  EXPECT_EQ(history.newest_step_before(100), 50);
  EXPECT_FALSE(history.newest_step_before(50));
}

TEST_F(Launcher, AFullDiskEndsNothing) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  std::filesystem::create_symlink("/dev/full", run.events());
  RunHistory history(run);
  EXPECT_NO_THROW(history.event("x", 1, {}, "y"));
}

// A disk that was full while an attempt ended once made the records say that its launcher had been killed.
TEST_F(Launcher, WritesLinesThatFoundNoRoomOnceThereIsSome) {
  constexpr std::size_t room = 1 << 16;  // attempts.jsonl fills it: a file may not grow beyond
  std::ofstream(run.attempts()) << std::string(room, '\n');
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit full{room, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &full);
  RunHistory history(run);
  history.append({.attempt = 1, .exit_code = 137, .cause = "signal", .reason = "killed"});
  history.event("attempt_ended", 1, {}, "killed");
  EXPECT_THAT(read_if_there(run.events()), HasSubstr("attempt_ended")) << "another file waits for nobody";
  EXPECT_EQ(history.begin_attempt(), 2);
  std::filesystem::create_directories(run.log_folder(2));
  history.append({.attempt = 2, .exit_code = 74, .cause = "io", .reason = "no room"});
  EXPECT_EQ(read_if_there(run.attempts()).size(), room) << "there was room";
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(history.begin_attempt(), 3);
  const auto text = read_if_there(run.attempts());
  EXPECT_LT(text.find(R"("cause":"signal")"), text.find(R"("cause":"io")"));
  EXPECT_NE(text.find(R"("cause":"io")"), std::string::npos);
  EXPECT_THAT(text, Not(HasSubstr("launcher")));
  EXPECT_THAT(read_if_there(run.events()), Not(HasSubstr("attempt_lost")));
}

// Once it was "a defect of smlp", with exit code 70.
TEST_F(Launcher, AnIdentityWhoseAcceptedChangesAreNoListIsToldAsDamaged) {
  for (const char* changes : {"\"none\"", "{\"key\":\"model.dim\"}", "3"}) {
    write_atomically(run.identity(), fmt::format(R"({{"id":"a","accepted_changes":{}}})", changes));
    try {
      prepare_run(run, parse_job("", "job.toml"), nullptr, {});
      FAIL() << changes;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("run.json is damaged"), HasSubstr("or move it aside")));
    }
  }
  std::filesystem::remove(run.identity());
  EXPECT_NO_THROW(prepare_run(run, parse_job("", "job.toml"), nullptr, {}));
}

// It was overwritten by a new one, without the changes that were accepted, whenever the disk did not give it.
TEST_F(Launcher, AnIdentityThatCantBeReadIsNotReplaced) {
  std::filesystem::create_symlink("run.json", run.identity());  // leads to itself
  try {
    prepare_run(run, parse_job("", "job.toml"), nullptr, {});
    FAIL() << "a new one was written";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io_failed);
    EXPECT_THAT(error.what(), HasSubstr("run.json"));
  }
  EXPECT_TRUE(std::filesystem::is_symlink(run.identity()));
}

// `smlp status` asks for the launcher's lock for a moment: a `smlp run` of that moment was refused, "in use by" nobody.
// A run whose nodes had saved, and which had published nothing yet, was refused though it needed these weights no more.
TEST_F(Launcher, WeightsThatAreGoneEndNoRunWhoseNodesMayHoldSaves) {
  const auto weights = run.root / "elsewhere/step-00000009";
  write_atomically(run.identity(), fmt::format(R"({{"id":"1","init_from":"{}"}})", weights.string()));
  EXPECT_THROW(weights_given_before(run), Error);
  write_atomically(run.local_tier(), "{}");
  EXPECT_EQ(weights_given_before(run), weights);
}

// Two sets of ranks would train one run.
TEST_F(Launcher, WorkersOfAnEarlierStartAreWaitedForOrRefused) {
  auto workers = std::optional(FileLock::try_lock(run.workers_lock(), FileLock::Kind::shared));
  try {
    take_run(run, {.workers_seconds = 0.1});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::call_again);
    EXPECT_THAT(error.what(), HasSubstr("workers of an earlier start"));
  }
  EXPECT_TRUE(take_run(run, {.workers_seconds = 0.1, .pass_by_workers = true}).held());
  std::atomic<bool> ending = false;
  std::jthread ends([&] {
    sleep_seconds(0.1);
    ending = true;
    workers.reset();
  });
  EXPECT_TRUE(take_run(run, {.workers_seconds = 30}).held());
  EXPECT_TRUE(ending) << "it did not wait for them";
}

TEST_F(Launcher, ARunThatIsLookedAtIsNotInUse) {
  std::optional glance(FileLock::try_lock(run.launcher_lock(), FileLock::Kind::shared));
  std::jthread looks_away([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    glance.reset();
  });
  EXPECT_NO_THROW(take_run(run));
}

}  // namespace
}  // namespace smlp
