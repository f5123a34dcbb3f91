// `smlp submit` from the job file to sbatch, with stand-ins for SLURM's programs and for the worker.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "core/features.h"
#include "core/files.h"
#include "fake_programs.h"
#include "tests/commands/command_line.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class Submit : public test::CommandLine {
 protected:
  void SetUp() override {
    test::CommandLine::SetUp();
    if (place.empty()) return;
    for (const char* name : {"SLURM_JOB_ID", "SBATCH_PARTITION"}) fakes.variables.unset(name);
    counting_worker("1000");
    fakes.says("sbatch", "4711\n");
    fakes.says("sinfo", "batch\nurgent\n");
    fakes.says("scontrol", "slurm_load_jobs error: Invalid job id specified\n", 1, true);
  }
  // A worker that knows what a checkpoint weighs, and nothing else.
  void counting_worker(const std::string& bytes) {
    write("plan.sh", "#!/bin/bash\n[ \"$1\" = plan ] && echo '{\"checkpoint_bytes\": " + bytes + "}'\n");
    std::filesystem::permissions(place / "plan.sh", std::filesystem::perms::owner_all);
  }
  test::Answer submit(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "submit");
    return smlp(arguments, place / "plan.sh");
  }
  test::Answer submit_job(const std::vector<std::string>& settings, std::vector<std::string> more = {}) {
    more.insert(more.begin(), "job.toml");
    for (const auto& setting : settings) more.insert(more.end(), {"--set", setting});
    return submit(more);
  }
  void expect_refusal(const test::Answer& answer, int code, const std::vector<std::string>& words) {
    EXPECT_EQ(answer.code, code) << answer.out << answer.err;
    for (const auto& part : words) EXPECT_THAT(answer.err, HasSubstr(part));
    EXPECT_EQ(answer.err.find('\n') + 1, answer.err.size()) << "one sentence: " << answer.err;
    EXPECT_EQ(answer.out, "");
    for (const auto& call : fakes.calls()) EXPECT_THAT(call, Not(testing::StartsWith("sbatch")));
  }
  std::filesystem::path run_folder() const { return place / "runs/small"; }

  test::FakePrograms fakes;
};

TEST_F(Submit, WritesWhatRunWouldReadAndHandsItToSbatch) {
  const auto answer = submit_job({"slurm.nodes=2", "slurm.tasks_per_node=1", "cluster.spare_nodes=1"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  const auto root = std::filesystem::canonical(run_folder()).string();
  EXPECT_EQ(answer.out, "small: job 4711, 2 ranks on 2 nodes and 1 spare\nruns in " + root + "\n");
  EXPECT_EQ(answer.err, "");
  EXPECT_THAT(fakes.calls(), ElementsAre("sbatch|--parsable|" + root + "/submit.sh"));
  EXPECT_THAT(test::contents(run_folder() / "submit.sh"),
              AllOf(HasSubstr("#SBATCH --nodes=3\n"), HasSubstr("run '" + root + "/submit.toml' --run-dir '" + root + "'\n"),
                    HasSubstr("cd -- '" + std::filesystem::canonical(place).string() + "'")));
  EXPECT_THAT(test::contents(run_folder() / "submit.toml"),
              AllOf(HasSubstr("\nranks = 2\n"), HasSubstr("vocabulary = 320\n"), HasSubstr("expert_ranks = 0\n")))
      << "what follows from the number of ranks is left open: fewer may go on";
  EXPECT_THAT(test::contents(run_folder() / "job.toml"), HasSubstr("expert_ranks = 2\n"));
  EXPECT_TRUE(std::filesystem::is_directory(run_folder() / "logs"));
  const auto event = nlohmann::json::parse(test::contents(run_folder() / "events.jsonl"));
  EXPECT_EQ(event["event"], "submitted");
  EXPECT_EQ(event["job_id"], "4711");

  const auto facts = nlohmann::json::parse(submit_job({}, {"--json"}).out);
  EXPECT_EQ(facts, (nlohmann::json{{"job_id", "4711"}, {"run_dir", root}, {"script", root + "/submit.sh"}}));
}

TEST_F(Submit, DryRunPrintsTheScriptAndTouchesNothing) {
  fakes.variables.set("PATH", (fakes.place / "nothing").string());
  const auto answer = submit_job({"slurm.partition=batch"}, {"--dry-run"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.out, testing::StartsWith("#!/bin/bash\n#SBATCH --job-name=small\n#SBATCH --nodes=2\n"));
  EXPECT_EQ(answer.err, "");
  EXPECT_FALSE(std::filesystem::exists(place / "runs"));
  EXPECT_THAT(fakes.calls(), IsEmpty());
  const auto facts = nlohmann::json::parse(submit_job({}, {"--dry-run", "--json"}).out);
  EXPECT_TRUE(facts["job_id"].is_null());
  EXPECT_THAT(facts["text"].get<std::string>(), testing::StartsWith("#!/bin/bash\n"));
}

TEST_F(Submit, NeedsSbatch) {
  fakes.variables.set("PATH", (fakes.place / "nothing").string());
  expect_refusal(submit_job({}), 69, {"there is no sbatch on PATH", "`smlp run`"});
  EXPECT_FALSE(std::filesystem::exists(place / "runs"));
}

TEST_F(Submit, RefusesWhatTheQueueWouldWaitForInVain) {
  expect_refusal(submit_job({"data.train=[\"absent\"]"}), 78, {"data.train", "absent"});
  expect_refusal(submit_job({"slurm.nodes=3"}), 78,
                 {"train.global_batch = 4 can't be shared out: 3 ranks x micro-batches of 2"});
  expect_refusal(submit_job({"slurm.nodes=1", "slurm.tasks_per_node=2", "cluster.expert_ranks=4"}), 78,
                 {"cluster.expert_ranks = 4 does not divide cluster.ranks = 2"});
  expect_refusal(submit_job({"slurm.tasks_per_node=4"}), 78, {"slurm.tasks_per_node = 4 does not divide cluster.ranks = 2"});
  expect_refusal(submit_job({"slurm.nodes=2"}, {"--ranks", "1"}), 64, {"--ranks 1 does not fit slurm.nodes = 2"});
  expect_refusal(submit_job({"slurm.time_limit=2"}), 78, {"slurm.time_limit = \"2\" leaves no time to compute", "120 s"});
  expect_refusal(submit_job({"slurm.time_limit=10", "checkpoint.every_seconds=300"}), 78,
                 {"too short for three checkpoints: one comes every 5:00", "lengthen it to 15:00"});
  expect_refusal(submit_job({"slurm.partition=night"}), 78,
                 {"--set slurm.partition=night: slurm.partition = \"night\" is not there; SLURM has batch and urgent"});
  expect_refusal(submit_job({"slurm.partition=\"a\\nb\""}), 78, {"slurm.partition", "a line break"});
  expect_refusal(submit_job({}, {"--run-dir", "job.toml/below"}), 74, {"job.toml is no folder"});
  expect_refusal(submit_job({}, {"--run-dir", "a\nb"}), 78, {"the run directory holds a line break"});
  expect_refusal(submit_job({}, {"--accept-change", "model.widht"}), 78, {"model.widht"});
  EXPECT_FALSE(std::filesystem::exists(place / "runs"));
  EXPECT_FALSE(std::filesystem::exists(place / "a\nb"));
}

TEST_F(Submit, LooksForRoomForTheCheckpointsThatStay) {
  counting_worker("4e17");
  expect_refusal(submit_job({"checkpoint.keep_last=5"}), 78, {"checkpoint.keep_last = 5 needs 2.4e+18 bytes more",
                                                              "5 checkpoints kept and one being written"});
  // Those were forgotten that stay for good: a run that had room for its last ones was submitted, and filled the disk.
  expect_refusal(submit_job({"checkpoint.keep_last=2", "checkpoint.keep_every=10"}), 78,
                 {"checkpoint.keep_every = 10 needs 3.2e+18 bytes more", "7 checkpoints kept and one being written", "0 of them"});
  for (const int step : {10, 20}) {
    std::filesystem::create_directories(run_folder() / fmt::format("checkpoints/step-{:08}", step));
    write(fmt::format("runs/small/checkpoints/step-{:08}/manifest.json", step), "{}");
  }
  expect_refusal(submit_job({"checkpoint.keep_last=2", "checkpoint.keep_every=10"}), 78, {"needs 2.4e+18", "2 of them there"});
  write("plan.sh", "#!/bin/bash\necho 'no device; none' >&2\nexit 69\n");
  const auto answer = submit_job({});
  EXPECT_EQ(answer.code, 0);
  EXPECT_THAT(answer.err, HasSubstr("disk and memory were not checked: the size of a checkpoint is not known (no device; none)"));
}

TEST_F(Submit, SaysWhereTheRanksOfANodeTakeMoreMemoryThanTheJobAsksFor) {
  counting_worker(R"(1000,"checkpoint_copy_bytes_per_rank":1073741824,"memory_bytes_per_rank":{"total":3221225472})");
  const auto said = [&](const std::string& memory, const char* device = "cpu", const char* extra = "--comment=x") {
    const auto answer = submit_job({"slurm.memory=" + memory, "slurm.tasks_per_node=2", fmt::format("cluster.device={}", device),
                                    fmt::format("slurm.extra=[\"{}\"]", extra)},
                                   {"--dry-run"});
    EXPECT_EQ(answer.code, 0) << answer.err;
    return answer.err;
  };
  EXPECT_THAT(said("7G"), HasSubstr("slurm.memory = \"7G\" is less than the 8.0 GiB that 2 ranks on a node take"));
  EXPECT_EQ(said("8G"), "");
  EXPECT_EQ(said("0"), "") << "all that the node has";
  EXPECT_EQ(said("7G", "cpu", "--mem-per-cpu=8G"), "");
  EXPECT_THAT(said("2000", "auto"), HasSubstr(built_with_cuda() ? "than the 2.0 GiB" : "than the 8.0 GiB"))
      << "beside GPUs hosts hold the copy of a checkpoint alone";
}

TEST_F(Submit, LearnsFromWhatTheRunHasCost) {
  std::filesystem::create_directories(run_folder());
  write("runs/small/metrics.jsonl", "{\"step\":1,\"step_seconds\":20.0}\n");
  write("runs/small/events.jsonl", "{\"event\":\"checkpoint_published\",\"seconds\":30.5}\n");
  expect_refusal(submit_job({"slurm.time_limit=30"}), 78, {"three checkpoints: one comes every 16:40"});
  const auto answer = submit_job({"slurm.time_limit=60"}, {"--dry-run"});
  EXPECT_THAT(answer.out, HasSubstr("--signal=B:USR1@182\n")) << "30 + 3 x 50.5, rounded up";
  EXPECT_THAT(submit_job({"slurm.time_limit=60", "slurm.signal_seconds=300"}, {"--dry-run"}).out, HasSubstr("USR1@300\n"));
}

TEST_F(Submit, GoesOnWhereSlurmDoesNotSayWhetherThePartitionIsThere) {
  fakes.says("sinfo", "Invalid something\n", 1, true);
  const auto answer = submit_job({"slurm.partition=night"});
  EXPECT_EQ(answer.code, 0);
  EXPECT_THAT(answer.err, HasSubstr("SLURM did not say whether there is a partition night"));
}

TEST_F(Submit, TellsWhatSbatchSaid) {
  fakes.says("sbatch", "sbatch: error: Batch job submission failed: Invalid account\n", 1, true);
  const auto refused = submit_job({});
  EXPECT_EQ(refused.code, 78);
  EXPECT_THAT(refused.err, HasSubstr("the job was not submitted: sbatch: error: Batch job submission failed: Invalid account"));
  fakes.says("sbatch", "sbatch: error: Batch job submission failed: Unable to contact slurm controller\n", 1, true);
  EXPECT_EQ(submit_job({}).code, 69);
  EXPECT_EQ(test::contents(run_folder() / "events.jsonl"), "");
}

// It was 78, bad configuration, and four messages on one line.
TEST_F(Submit, WhereNoControllerIsAResourceIsMissing) {
  fakes.says("sbatch", "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
                       "sbatch: error: fetch_config: DNS SRV lookup failed\nsbatch: fatal: Could not establish a configuration source\n",
             1, true);
  const auto answer = submit_job({});
  EXPECT_EQ(answer.code, 69);
  EXPECT_EQ(answer.err, "smlp: the job was not submitted: SLURM's controller can't be reached from here: Could not establish a "
                        "configuration source (sbatch); `sinfo` answers when it can be\n");
}

TEST_F(Submit, OneLiveRunADirectory) {
  ASSERT_EQ(submit_job({}).code, 0);
  const auto calls = fakes.calls().size();
  fakes.says("scontrol", "JobId=4711 JobName=small\n   JobState=PENDING Reason=Priority\n");
  const auto waiting = submit_job({});
  EXPECT_EQ(waiting.code, 75);
  EXPECT_THAT(waiting.err, AllOf(HasSubstr("job 4711 of "), HasSubstr("is pending still"), HasSubstr("afterany:4711")));
  EXPECT_EQ(submit_job({"slurm.dependency=afterany:4711"}).code, 0) << "it waits for the other";
  fakes.says("scontrol", "JobId=4711 JobName=small\n   JobState=CANCELLED Reason=None\n");
  EXPECT_EQ(submit_job({}).code, 0);
  EXPECT_THAT(fakes.calls(), SizeIs(calls + 4));

  const auto lock = FileLock::try_lock(run_folder() / "lock", FileLock::Kind::exclusive);
  ASSERT_TRUE(lock.held());
  const auto live = submit_job({});
  EXPECT_EQ(live.code, 75);
  EXPECT_THAT(live.err, HasSubstr("is in use by"));
}

// It was refused, and where locks do not reach from host to host it rewrote the job of the live run.
TEST_F(Submit, AJobThatWaitsForALiveRunLeavesItAlone) {
  ASSERT_EQ(submit_job({"train.steps=40"}).code, 0);
  const auto job = test::contents(run_folder() / "job.toml"), identity = test::contents(run_folder() / "run.json");
  fakes.says("scontrol", "JobId=4711 JobName=small\n   JobState=RUNNING Reason=None\n");
  const auto lock = FileLock::try_lock(run_folder() / "lock", FileLock::Kind::exclusive);
  ASSERT_TRUE(lock.held());
  const auto answer = submit_job({"train.steps=80", "slurm.dependency=afterany:4711"});
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(test::contents(run_folder() / "job.toml"), job);
  EXPECT_EQ(test::contents(run_folder() / "run.json"), identity);
}

// The first of two chained jobs ran with the settings of the second: both read submit.toml.
TEST_F(Submit, AJobThatWaitsForAnotherLeavesItItsSettings) {
  ASSERT_EQ(submit_job({"train.steps=40"}).code, 0);
  const auto first = test::contents(run_folder() / "submit.toml");
  const std::string waits = "slurm.dependency=afterany:4711";
  ASSERT_EQ(submit_job({"train.steps=80", waits}).code, 0);
  EXPECT_EQ(test::contents(run_folder() / "submit.toml"), first);
  EXPECT_THAT(test::contents(run_folder() / "submit-2.toml"), HasSubstr("\nsteps = 80\n"));
  EXPECT_THAT(test::contents(run_folder() / "submit.sh"), HasSubstr("/submit-2.toml'"));
  ASSERT_EQ(submit_job({"train.steps=80", waits}).code, 0);
  EXPECT_FALSE(std::filesystem::exists(run_folder() / "submit-3.toml")) << "the same settings are one file";
}

// Both looked before either had written its job's number, and both were accepted.
TEST_F(Submit, OfTwoAtTheSameTimeOneSubmits) {
  const auto mark = place / "sbatch-asked";
  fakes.program("sbatch", "mark='" + mark.string() + "'; touch $mark; while [ -e $mark ]; do sleep 0.02; done; echo 4711");
  const auto first = start({"submit", "job.toml"}, place / "plan.sh");
  for (const double end = monotonic_seconds() + 20; !std::filesystem::exists(mark) && monotonic_seconds() < end;) {
    sleep_seconds(0.01);
  }
  const auto second = submit_job({});
  EXPECT_EQ(second.code, 75);
  EXPECT_THAT(second.err, HasSubstr("another `smlp submit` into "));
  std::filesystem::remove(mark);
  EXPECT_EQ(finish(first).code, 0);
  EXPECT_THAT(fakes.calls(), SizeIs(1));
}

// The last job alone was asked for: when it had ended, one that waited before it went unseen.
TEST_F(Submit, EveryEarlierJobIsAskedFor) {
  ASSERT_EQ(submit_job({}).code, 0);
  fakes.says("sbatch", "4712\n");
  ASSERT_EQ(submit_job({"slurm.dependency=afterany:4711"}).code, 0);
  fakes.program("scontrol", "[ \"$3\" = 4711 ] && state=PENDING || state=CANCELLED\n"
                            "printf 'JobId=%s JobName=small\\n   JobState=%s Reason=None\\n' \"$3\" $state");
  const auto third = submit_job({});
  EXPECT_EQ(third.code, 75);
  EXPECT_THAT(third.err, HasSubstr("job 4711 of "));
}

TEST_F(Submit, AJobThatSlurmSaysNothingOfKeepsItsSettings) {
  ASSERT_EQ(submit_job({"train.steps=40"}).code, 0);
  const auto first = test::contents(run_folder() / "submit.toml");
  fakes.says("scontrol", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1, true);
  ASSERT_EQ(submit_job({"train.steps=80"}).code, 0);
  EXPECT_EQ(test::contents(run_folder() / "submit.toml"), first);
  EXPECT_THAT(test::contents(run_folder() / "submit.sh"), HasSubstr("/submit-2.toml'"));
}

// `status` called a job that was cancelled in the queue `waiting`, for ever.
TEST_F(Submit, StatusAsksSlurmForTheJobThatARunWaitsFor) {
  ASSERT_EQ(submit_job({}).code, 0);
  const auto facts = [&] { return nlohmann::json::parse(smlp({"status", "runs/small", "--json"}).out); };
  fakes.says("scontrol", "JobId=4711 JobName=small\n   JobState=PENDING Reason=Priority\n");
  EXPECT_THAT(smlp({"status", "runs/small"}).out,
              AllOf(testing::StartsWith("small  waiting"), HasSubstr("\njob         4711 is pending: Priority\n")));
  EXPECT_EQ(facts()["job"], (nlohmann::json{{"id", "4711"}, {"state", "pending"}, {"reason", "Priority"}}));
  for (const char* command : {"stop", "save"}) {
    const auto answer = smlp({command, "runs/small"});
    EXPECT_EQ(answer.code, 75);
    EXPECT_THAT(answer.err, AllOf(HasSubstr("it is waiting: nobody is there"), HasSubstr("`scancel 4711`")));
  }
  const auto expect_end = [&](const char* state, const std::string& words) {
    EXPECT_EQ(facts()["state"], state) << words;
    EXPECT_THAT(facts()["detail"].get<std::string>(), HasSubstr(words));
    EXPECT_TRUE(facts()["job"].is_null());
    const auto compared = nlohmann::json::parse(smlp({"compare", "runs/small", "--json"}).out);
    EXPECT_EQ(compared["runs"][0]["state"], state) << "by `compare` as by `status`";
  };
  fakes.says("scontrol", "JobId=4711 JobName=small\n   JobState=CANCELLED Reason=None\n");
  expect_end("stopped", "job 4711 was cancelled while the run waited for it; submit again");
  EXPECT_THAT(smlp({"status", "runs/small", "--watch"}).out, HasSubstr("submit again")) << "it ends";
  fakes.says("scontrol", "JobId=4711 JobName=small\n   JobState=FAILED Reason=NonZeroExitCode\n");
  expect_end("failed", "logs/slurm-4711.log");
  fakes.says("scontrol", "slurm_load_jobs error: Invalid job id specified\n", 1, true);
  expect_end("stopped", "job 4711, for which the run waited, is not in SLURM's queue any more");
  fakes.says("scontrol", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1, true);
  EXPECT_EQ(facts()["state"], "waiting");
  EXPECT_EQ(facts()["job"]["state"], "unknown");
  fakes.variables.set("PATH", (fakes.place / "nothing").string());
  EXPECT_EQ(facts()["state"], "waiting");
}

TEST_F(Submit, StatusOfAnArraysFolderTellsOfItsTasks) {
  ASSERT_EQ(submit_job({"slurm.array=0-3"}).code, 0);
  const auto task = [&](int number, const std::string& events) {
    const auto folder = "runs/small/task-" + std::to_string(number);
    std::filesystem::create_directories(place / folder);
    write(folder + "/events.jsonl", events);
  };
  const auto facts = [&](const std::string& folder) { return nlohmann::json::parse(smlp({"status", folder, "--json"}).out); };
  task(10, "{\"event\":\"run_started\"}\n{\"event\":\"requeued\"}\n");
  task(2, "{\"event\":\"run_started\"}\n{\"event\":\"done\"}\n");
  fakes.says("scontrol", "JobId=4711 ArrayJobId=4711 JobName=small\n   JobState=PENDING Reason=Resources\n");
  EXPECT_THAT(smlp({"status", "runs/small"}).out,
              AllOf(testing::StartsWith("small  waiting\n"), HasSubstr("\ntasks       task-2: done, task-10: waiting\nlogs ")));
  EXPECT_THAT(smlp({"status", "runs/small/task-10"}).out, HasSubstr("job         4711_10 is pending: Resources\n"));
  EXPECT_THAT(fakes.calls().back(), HasSubstr("4711_10"));
  EXPECT_THAT(smlp({"stop", "runs/small"}).err,
              HasSubstr("holds the runs of an array: name one of them, as runs/small/task-2"));
  fakes.says("scontrol", "JobId=4715 ArrayJobId=4711 JobName=small\n   JobState=FAILED Reason=NonZeroExitCode\n");
  EXPECT_THAT(facts("runs/small/task-10")["detail"].get<std::string>(), HasSubstr("see runs/small/logs/slurm-4711_10.log, "))
      << "it named a file in the task's own folder, where SLURM writes none";
  fakes.says("scontrol", "JobId=4711 ArrayJobId=4711 JobName=small\n   JobState=PENDING Reason=Resources\n");
  task(10, "{\"event\":\"run_started\"}\n{\"event\":\"done\"}\n");
  EXPECT_EQ(facts("runs/small")["state"], "waiting") << "for the tasks that have no folder yet";
  fakes.says("scontrol", "slurm_load_jobs error: Invalid job id specified\n", 1, true);
  EXPECT_EQ(facts("runs/small")["state"], "done");
  EXPECT_EQ(facts("runs/small")["tasks"][1], (nlohmann::json{{"task", 10}, {"state", "done"}}));
}

TEST_F(Submit, AChangedJobIsRefusedLikeByRun) {
  std::filesystem::create_directories(run_folder());
  write("runs/small/script", "* * steps 2\n* * checkpoint\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);
  expect_refusal(submit_job({"seed=2"}), 78, {"seed = 2, but the run has 1"});
  expect_refusal(submit_job({"seed=2"}, {"--dry-run"}), 78, {"seed = 2, but the run has 1"});
  EXPECT_EQ(submit_job({"seed=2"}, {"--accept-change", "seed"}).code, 0);
  EXPECT_THAT(test::contents(run_folder() / "submit.sh"), HasSubstr("'--accept-change' 'seed'\n"));
}

// run.json said afterwards that the run had begun with other weights.
TEST_F(Submit, WeightsToBeginWithAreNotUsedWhereARunHasCheckpoints) {
  std::filesystem::create_directories(run_folder());
  write("runs/small/script", "* * steps 2\n* * checkpoint\n");
  ASSERT_EQ(smlp({"run", "job.toml"}, fake_worker()).code, 0);
  const auto answer = submit_job({}, {"--init-from", "runs/small"});
  EXPECT_EQ(answer.code, 0);
  EXPECT_THAT(answer.err, HasSubstr("--init-from is not used: "));
  EXPECT_THAT(test::contents(run_folder() / "run.json"), testing::Not(HasSubstr("init_from")));
  EXPECT_THAT(test::contents(run_folder() / "submit.sh"), testing::Not(HasSubstr("init-from")));
}

// The script is run as SLURM would run it, by a bash: what it starts is the real `smlp run`.
TEST_F(Submit, AHostileNameTrainsInTheFolderOfThatNameAndExecutesNothing) {
  fakes.program("sbatch", "cd / && bash \"${@: -1}\" > '" + (place / "job.log").string() + "' 2>&1; echo \"4711 $?\" | cut -d' ' -f1");
  for (const std::string name : {"$(touch canary)", "a 'b' \"c\"; touch canary #", "-x `touch canary`", "100%j"}) {
    SCOPED_TRACE(name);
    const auto folder = place / "runs" / name;
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "script") << "* * steps 2\n";
    std::ofstream(place / "worker.sh") << "#!/bin/bash\nif [ \"$1\" = plan ]; then echo '{\"checkpoint_bytes\": 1}'; else exec "
                                       << fake_worker() << " \"$@\"; fi\n";
    std::filesystem::permissions(place / "worker.sh", std::filesystem::perms::owner_all);
    const auto text = test::contents(place / "job.toml");
    write("hostile.toml", "name = '''" + name + "'''\n" + text.substr(text.find('\n') + 1));
    const auto answer = smlp({"submit", "hostile.toml"}, place / "worker.sh");
    ASSERT_EQ(answer.code, 0) << answer.err;
    EXPECT_THAT(test::contents(place / "job.log"), HasSubstr("step 2/50"));
    EXPECT_TRUE(std::filesystem::exists(folder / "attempts.jsonl"));
    for (const auto& where : {place, folder, std::filesystem::path("/")}) {
      EXPECT_FALSE(std::filesystem::exists(where / "canary")) << where;
    }
  }
}

}  // namespace
}  // namespace smlp
