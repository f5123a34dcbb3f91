#include "slurm/batch_script.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "core/clock.h"
#include "core/error.h"
#include "fake_programs.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

JobConfig demo() {
  JobConfig job;
  job.name = "demo";
  job.seed = 7;
  job.cluster.threads = 3;
  job.cluster.spare_nodes = 1;
  job.slurm.nodes = 4;
  job.slurm.tasks_per_node = 2;
  return job;
}

class BatchScriptText : public testing::Test {
 protected:
  BatchScript script() const {
    return {.program = fakes.place / "bin/smlp", .job_file = "/runs/demo/submit.toml", .run_directory = "/runs/demo",
            .working_directory = fakes.place, .run_options = {}, .warning_seconds = 120};
  }
  // The answer of a real bash that is given the script; what it prints goes to "out".
  int run(const std::string& text) const { return finish(start(text)); }
  pid_t start(const std::string& text) const {
    const auto file = fakes.place / "submit.sh";
    std::ofstream(file) << text;
    const pid_t child = fork();
    if (child != 0) return child;
    if (!freopen((fakes.place / "out").c_str(), "w", stdout) || !freopen((fakes.place / "err").c_str(), "w", stderr)) _exit(126);
    alarm(60);
    execl("/bin/bash", "bash", file.c_str(), nullptr);
    _exit(127);
  }
  static int finish(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  bool wait_for(const std::string& name) const {
    for (const double end = monotonic_seconds() + 30; monotonic_seconds() < end;) {
      if (std::filesystem::exists(fakes.place / name)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  std::vector<std::string> words_of_smlp() const {  // its arguments, each ended by a zero byte
    std::vector<std::string> words;
    const auto text = test::file_contents(fakes.place / "words");
    for (std::size_t at = 0; at < text.size(); at = text.find('\0', at) + 1) words.emplace_back(text.c_str() + at);
    return words;
  }
  void fake_smlp(const std::filesystem::path& program, const std::string& body = "") const {
    std::ofstream(program) << "#!/bin/bash\nprintf '%s\\0' \"$@\" > '" << (fakes.place / "words").string() << "'\n" << body << "\n";
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  }

  test::FakePrograms fakes;
};

TEST_F(BatchScriptText, TellsSlurmAllThatTheJobAsksFor) {
  auto job = demo();
  auto& s = job.slurm;
  s.time_limit = "1-12:00:00";
  s.partition = "batch,urgent";
  s.account = "lab";
  s.qos = "normal";
  s.memory = "64G";
  s.constraint = "[a|b]&c";
  s.gpus_per_task = 2;
  s.exclusive = true;
  s.array = "0-9%1";
  s.dependency = "afterok:17";
  s.extra = {"--reservation=maintenance", "-x n3"};
  const auto text = text_of(script(), job);
  EXPECT_THAT(text, testing::StartsWith("#!/bin/bash\n#SBATCH --job-name=demo\n#SBATCH --nodes=5\n#SBATCH --ntasks=10\n"
                                        "#SBATCH --ntasks-per-node=2\n#SBATCH --cpus-per-task=3\n#SBATCH --gpus-per-task=2\n"
                                        "#SBATCH --mem=64G\n#SBATCH --time=1-12:00:00\n#SBATCH --partition=batch,urgent\n"
                                        "#SBATCH --account=lab\n#SBATCH --qos=normal\n#SBATCH --constraint=\"[a|b]&c\"\n"
                                        "#SBATCH --array=0-9%1\n#SBATCH --dependency=afterok:17\n#SBATCH --exclusive\n"
                                        "#SBATCH --output=/runs/demo/logs/slurm-%A_%a.log\n#SBATCH --open-mode=append\n"
                                        "#SBATCH --requeue\n#SBATCH --no-kill\n#SBATCH --signal=B:USR1@120\n"
                                        "#SBATCH --reservation=maintenance\n#SBATCH -x n3\n"));
  EXPECT_THAT(text, HasSubstr("exec '" + script().program.string() + "' run '/runs/demo/submit.toml' --run-dir '/runs/demo'\n"));
}

TEST_F(BatchScriptText, LeavesOutWhatTheJobLeavesOpen) {
  auto job = demo();
  job.slurm = {};
  job.slurm.nodes = 3;
  job.cluster.spare_nodes = 0;
  const auto text = text_of(script(), job);
  EXPECT_THAT(text, AllOf(HasSubstr("--nodes=3\n"), HasSubstr("--ntasks=3\n"), HasSubstr("--cpus-per-task=3\n")));
  for (const char* option : {"--time", "--partition", "--account", "--qos", "--mem", "--constraint", "--gpus", "--array",
                             "--dependency", "--exclusive"}) {
    EXPECT_THAT(text, Not(HasSubstr(option)));
  }
}

TEST_F(BatchScriptText, HostileNamesArriveAsTheyAreAndNothingIsExecuted) {
  const auto canary = (fakes.place / "canary").string();
  const std::vector<std::string> hostile = {"plain",
                                            "a b",
                                            "it's",
                                            "\"quoted\"",
                                            "$(touch canary)",
                                            "`touch canary`",
                                            "; touch canary #",
                                            "'; touch canary; '",
                                            "\"; touch canary; \"",
                                            "-rf",
                                            "--help",
                                            "&& touch canary",
                                            "| touch canary",
                                            "$HOME ${PATH} $0 !!",
                                            "*?[a-z]~{a,b}",
                                            "100%j %% %x",
                                            "größe",
                                            "#SBATCH --wrap=x",
                                            "> canary"};
  for (const auto& name : hostile) {
    SCOPED_TRACE(name);
    const auto folder = fakes.place / name;
    std::filesystem::create_directory(folder);
    fake_smlp(folder / "smlp");
    auto job = demo();
    job.name = name;
    auto s = script();
    s.program = folder / "smlp";
    s.job_file = folder / "submit.toml";
    s.run_directory = folder;
    s.working_directory = folder;
    s.run_options = {"--accept-change", name};
    ASSERT_EQ(run(text_of(s, job)), 0) << test::file_contents(fakes.place / "err");
    EXPECT_THAT(words_of_smlp(), ElementsAre("run", (folder / "submit.toml").string(), "--run-dir", folder.string(),
                                             "--accept-change", name));
    EXPECT_EQ(test::file_contents(fakes.place / "out") + test::file_contents(fakes.place / "err"), "");
    for (const auto& place : {fakes.place, folder}) EXPECT_FALSE(std::filesystem::exists(place / "canary"));
  }
}

// sbatch reads "…" with \" and \\ in it; 22.05 was asked.
TEST_F(BatchScriptText, SbatchReadsHostileNamesAsTheyAre) {
  EXPECT_EQ(sbatch_quoted("plain-1.2_3"), "plain-1.2_3");
  EXPECT_EQ(sbatch_quoted("a b"), "\"a b\"");
  EXPECT_EQ(sbatch_quoted("a#b"), "\"a#b\"");
  EXPECT_EQ(sbatch_quoted("it's"), "\"it's\"");
  EXPECT_EQ(sbatch_quoted("\"\\"), "\"\\\"\\\\\"");
  auto s = script();
  s.run_directory = "/runs/100%/it's \"x\" $(id)#;";
  EXPECT_THAT(text_of(s, demo()), HasSubstr("#SBATCH --output=\"/runs/100%%/it's \\\"x\\\" $(id)#;/logs/slurm-%j.log\"\n"));
}

TEST_F(BatchScriptText, WhatAScriptCannotNameIsRefused) {
  const auto refused = [&](const BatchScript& s, const JobConfig& job, const std::string& words) {
    try {
      text_of(s, job);
      ADD_FAILURE() << "taken: " << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::configuration);
      EXPECT_THAT(error.what(), HasSubstr(words));
    }
  };
  for (const char* odd : {"/a\nb", "/a\rb", "/a\tb", "/a\x7f"}) {
    auto s = script();
    s.run_directory = odd;
    refused(s, demo(), "the run directory holds a line break or another control character after '/a'");
    s = script();
    s.working_directory = odd;
    refused(s, demo(), "the path of this folder");
    s = script();
    s.program = odd;
    refused(s, demo(), "the path of smlp");
  }
  auto s = script();
  s.run_directory = "/a\\b";
  refused(s, demo(), "holds a backslash");
  auto job = demo();
  job.slurm.partition = "a\n#SBATCH --wrap=id";
  refused(script(), job, "slurm.partition holds a line break");
}

TEST_F(BatchScriptText, SetUpLinesRunInOrderInTheFolderOfTheSubmission) {
  fake_smlp(fakes.place / "bin/smlp", "echo \"smlp: $A in $PWD\"");
  auto job = demo();
  job.slurm.setup = {"A='b c'", "export A", "false", "echo \"setup in $PWD\""};
  EXPECT_EQ(run(text_of(script(), job)), 0);
  const auto here = std::filesystem::canonical(fakes.place).string();
  EXPECT_EQ(test::file_contents(fakes.place / "out"), "setup in " + here + "\nsmlp: b c in " + here + "\n");
  auto gone = script();
  gone.working_directory = "/nowhere/at all";
  EXPECT_EQ(run(text_of(gone, job)), 74);
  EXPECT_THAT(test::file_contents(fakes.place / "err"), HasSubstr("/nowhere/at all: No such file or directory"));
}

TEST_F(BatchScriptText, TheLastLineTakesTheShellsPlace) {
  fake_smlp(fakes.place / "bin/smlp", "echo $$; exit 75");
  const pid_t child = start(text_of(script(), demo()));
  EXPECT_EQ(finish(child), 75);
  EXPECT_EQ(test::file_contents(fakes.place / "out"), std::to_string(child) + "\n");
}

TEST_F(BatchScriptText, ASignalDuringSetUpWaitsForSmlp) {
  if (std::system("env --block-signal=USR1 true 2>/dev/null") != 0) GTEST_SKIP() << "env(1) can't block signals here";
  fake_smlp(fakes.place / "bin/smlp", "grep -E '^(ShdPnd|SigBlk)' /proc/$$/status");
  for (const int number : {SIGUSR1, SIGTERM}) {
    auto job = demo();
    job.slurm.setup = {"touch begun", "until [ -e go ]; do sleep 0.01; done", "rm go begun", "echo set up"};
    const pid_t child = start(text_of(script(), job));
    ASSERT_TRUE(wait_for("begun"));
    kill(child, number);
    std::ofstream(fakes.place / "go") << "";
    EXPECT_EQ(finish(child), 0) << "not deadly";
    std::istringstream words(test::file_contents(fakes.place / "out"));
    std::string text, word;
    std::uint64_t pending = 0, blocked = 0;
    std::getline(words, text);
    words >> word >> std::hex >> pending >> word >> blocked;
    EXPECT_EQ(text, "set up");
    EXPECT_EQ(pending, 1ull << (number - 1)) << "not lost";
    for (const int held : {SIGUSR1, SIGTERM, SIGINT}) EXPECT_NE(blocked & 1ull << (held - 1), 0u) << held;
  }
}

TEST_F(BatchScriptText, ASignalDuringSetUpIsNotDeadlyWhereEnvIsOld) {
  fakes.program("env", "exit 125");
  fake_smlp(fakes.place / "bin/smlp", "echo here");
  auto job = demo();
  job.slurm.setup = {"touch begun", "until [ -e go ]; do sleep 0.01; done"};
  const pid_t child = start(text_of(script(), job));
  ASSERT_TRUE(wait_for("begun"));
  kill(child, SIGUSR1);
  kill(child, SIGTERM);
  std::ofstream(fakes.place / "go") << "";
  EXPECT_EQ(finish(child), 0);
  EXPECT_EQ(test::file_contents(fakes.place / "out"), "here\n");
}

TEST_F(BatchScriptText, JobsOfAnArrayShareARunOrHaveTheirOwn) {
  fake_smlp(fakes.place / "bin/smlp");
  fakes.variables.set("SLURM_ARRAY_TASK_ID", "5");
  auto job = demo();
  job.slurm.array = "0-9%1";
  ASSERT_EQ(run(text_of(script(), job)), 0);
  EXPECT_THAT(words_of_smlp(), ElementsAre("run", "/runs/demo/submit.toml", "--run-dir", "/runs/demo"));
  job.slurm.array = "0-9";
  ASSERT_EQ(run(text_of(script(), job)), 0);
  EXPECT_THAT(words_of_smlp(), ElementsAre("run", "/runs/demo/submit.toml", "--run-dir", "/runs/demo/task-5", "--set", "seed=12"));
}

}  // namespace
}  // namespace smlp
