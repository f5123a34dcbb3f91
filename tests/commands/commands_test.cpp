// The command line as a user meets it: usage, job files, and the commands that hand over to the worker.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include "command_line.h"
#include "core/host_name.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class Usage : public test::CommandLine {};
class Config : public test::CommandLine {};
class Tools : public test::CommandLine {};

TEST_F(Usage, EveryCommandHasHelpWithAnExample) {
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{}, {"run"}, {"logs"}, {"plan"}, {"config"}, {"config", "show"}, {"config", "check"},
         {"config", "keys"}, {"eval"}, {"generate"}, {"bench"}, {"doctor"}, {"drill"}, {"check"}, {"check", "causality"},
         {"compare"}, {"status"}, {"save"}, {"stop"}, {"dump"}, {"submit"}, {"data"}, {"data", "prepare"},
         {"data", "train-tokenizer"}, {"data", "inspect"}, {"data", "encode"}, {"data", "decode"}, {"checkpoint"},
         {"checkpoint", "ls"}, {"checkpoint", "verify"}, {"checkpoint", "show"}, {"checkpoint", "diff"},
         {"checkpoint", "digest"}}) {
    auto words = command;
    words.push_back("--help");
    const auto answer = smlp(words);
    EXPECT_EQ(answer.code, 0);
    EXPECT_THAT(answer.out, HasSubstr("Example:\n  smlp ")) << (command.empty() ? "" : command.back());
    EXPECT_EQ(answer.err, "");
  }
}

// What `dump` had asked for was said to stay when its time is up, and `config check` to refuse all that `run` does.
TEST_F(Usage, HelpPromisesNoMoreThanIsSo) {
  EXPECT_THAT(smlp({"save", "--help"}).out, HasSubstr("60 by default; then the request stays"));
  EXPECT_THAT(smlp({"dump", "--help"}).out, AllOf(HasSubstr("the request is withdrawn"), Not(HasSubstr("request stays"))));
  EXPECT_THAT(smlp({"config", "check", "--help"}).out, AllOf(HasSubstr("metrics.listen"), Not(HasSubstr("all that"))));
}

TEST_F(Usage, WrongCommandLinesGetOneSentenceAndCode64) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> table = {
      {{"rnu"}, "there is no command 'smlp rnu'; did you mean run?"},
      {{"config", "shwo", "x"}, "there is no command 'smlp config shwo'; did you mean show?"},
      {{}, "`smlp` needs a command: run, status, save, stop, dump, drill, submit, logs, plan, config, data, checkpoint, "
           "eval, generate, check, compare, bench, doctor;"},
      {{"--vresion"}, "`smlp` has no option --vresion; did you mean --version?"},
      {{"--set", "a=1", "run", "job.toml"}, "`smlp` has no option --set"},
      {{"config"}, "`smlp config` needs a command: show, check, keys"},
      {{"run"}, "JOB is required"},
      {{"run", "job.toml", "--rank", "2"}, "no option --rank; did you mean --ranks?"},
      {{"run", "job.toml", "--ranks", "0"}, "--ranks"},
      {{"run", "job.toml", "--ranks", "two"}, "--ranks"},
      {{"run", "job.toml", "other.toml"}, "other.toml"},
      {{"plan", "job.toml", "--set", "nonsense"}, "--set wants section.key=value"},
      {{"bench", "setp"}, "there is no benchmark 'setp'; did you mean step?"},
  };
  for (const auto& [words, sentence] : table) {
    const auto answer = smlp(words);
    EXPECT_EQ(answer.code, 64) << sentence;
    EXPECT_THAT(answer.err, AllOf(StartsWith("smlp: "), HasSubstr(sentence)));
    EXPECT_EQ(std::count(answer.err.begin(), answer.err.end(), '\n'), 1) << answer.err;
    EXPECT_EQ(answer.out, "");
  }
}

// nan passed for a temperature, and 99999999999999999999 for the largest count there is; a refusal once spelled out the
// largest double in 300 digits.
TEST_F(Usage, ValuesOfOptionsAreBounded) {
  const std::vector<std::vector<std::string>> table = {
      {"generate", "run", "--prompt", "x", "--tokens", "99999999999999999999"},
      {"generate", "run", "--prompt", "x", "--tokens", "-1"},
      {"generate", "run", "--prompt", "x", "--seed", "18446744073709551615"},
      {"generate", "run", "--prompt", "x", "--temperature", "nan"},
      {"generate", "run", "--prompt", "x", "--temperature", "inf"},
      {"generate", "run", "--prompt", "x", "--temperature", "-1"},
      {"generate", "run", "--prompt", "x", "--top-k", "1.5"},
      {"eval", "run", "--data", "valid", "--ranks", "0"},
      {"drill", "job.toml", "--seed", "-1"},
      {"drill", "job.toml", "--count", "0"},
      {"drill", "job.toml", "--patience", "nan"},
      {"run", "job.toml", "--max-restarts", "-1"},
      {"submit", "job.toml", "--max-restarts", "-1"},
      {"stop", "run", "--after", "-1"},
      {"stop", "run", "--after", "99999999999999999999"},
      {"save", "run", "--timeout", "nan"},
      {"dump", "run", "--timeout", "0"},
      {"run", "job.toml", "--max-restarts", "two"},
      {"run", "job.toml", "--ranks", "1e1"},
      {"logs", "run", "--rank", "99999999999"},
      {"logs", "run", "--attempt", "0"},
      {"data", "prepare", "--input", "x", "--tokenizer", "bytes", "--output", "y", "--threads", "-1"},
      {"data", "prepare", "--input", "x", "--tokenizer", "bytes", "--output", "y", "--threads", "9999999"},
      {"data", "train-tokenizer", "--input", "x", "--vocabulary", "300", "--output", "y", "--threads", "9999999"},
  };
  for (const auto& words : table) {
    const auto answer = smlp(words, talking_worker(0));
    const auto& option = words[words.size() - 2];
    EXPECT_EQ(answer.code, 64) << option;
    EXPECT_THAT(answer.err, AllOf(HasSubstr(option + ": '" + words.back() + "' is not a"), HasSubstr(" from "))) << option;
    EXPECT_LT(answer.err.size(), 160u) << answer.err;
  }
}

// Files called .bin and .idx were written for an empty prefix.
TEST_F(Usage, AnEmptyOutputIsRefused) {
  write("text.txt", "text");
  for (const std::vector<std::string>& words : {std::vector<std::string>{"data", "prepare", "--tokenizer", "bytes"},
                                                {"data", "train-tokenizer", "--vocabulary", "300"}}) {
    auto command = words;
    command.insert(command.end(), {"--input", "text.txt", "--output", ""});
    const auto answer = smlp(command);
    EXPECT_EQ(answer.code, 64) << answer.err;
    EXPECT_THAT(answer.err, HasSubstr("--output: it is empty"));
  }
  EXPECT_FALSE(std::filesystem::exists(place / ".bin"));
}

// An empty shell variable once meant the default.
TEST_F(Usage, AnEmptyRunDirectoryIsRefusedBySubmitToo) {
  const auto answer = smlp({"submit", "job.toml", "--dry-run", "--run-dir", ""});
  EXPECT_EQ(answer.code, 64);
  EXPECT_THAT(answer.err, HasSubstr("--run-dir: it is empty"));
}

TEST_F(Usage, TellsItsVersion) {
  const auto answer = smlp({"--version"});
  EXPECT_EQ(answer.code, 0);
  EXPECT_THAT(answer.out, StartsWith("smlp "));
}

TEST_F(Config, ShowsWhatAJobResolvesToAndFromWhere) {
  const auto answer = smlp({"config", "show", "job.toml", "--set", "optimizer.betas=[0.8, 0.9]", "--set", "train.steps=9",
                            "--ranks", "1", "--json"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  const auto document = nlohmann::json::parse(answer.out);
  EXPECT_EQ(document["values"]["name"], "small");
  EXPECT_EQ(document["values"]["model"]["context"], 16);
  EXPECT_EQ(document["values"]["model"]["vocabulary"], 320) << "257 tokens, padded";
  EXPECT_EQ(document["values"]["optimizer"]["betas"], (std::vector<double>{0.8, 0.9}));
  EXPECT_EQ(document["values"]["cluster"]["ranks"], 1);
  EXPECT_EQ(document["origins"]["model.context"], "job.toml:3");
  EXPECT_EQ(document["origins"]["train.steps"], "--set train.steps=9");
  EXPECT_EQ(document["origins"]["cluster.ranks"], "--ranks");
  EXPECT_EQ(document["origins"]["seed"], "default");

  const auto text = smlp({"config", "show", "job.toml"});
  write("again.toml", text.out);
  EXPECT_EQ(smlp({"config", "show", "again.toml"}).out, text.out) << "what is shown is a job file";
  EXPECT_THAT(smlp({"config", "show", "job.toml", "--origin"}).out, HasSubstr("# job.toml:3"));
}

TEST_F(Config, ListsEveryKey) {
  const auto document = nlohmann::json::parse(smlp({"config", "keys", "--json"}).out);
  bool found = false;
  for (const auto& key : document) {
    if (key["key"] != "train.micro_batch") continue;
    found = true;
    EXPECT_EQ(key["type"], "integer");
    EXPECT_EQ(key["default"], 4);
    EXPECT_EQ(key["may_change"], true);
  }
  EXPECT_TRUE(found);
  EXPECT_THAT(smlp({"config", "keys"}).out, HasSubstr("routing.group_sequences"));
}

TEST_F(Config, ChecksAJobWithItsData) {
  EXPECT_EQ(smlp({"config", "check", "job.toml"}).code, 0);
  write("text.txt", std::string(5000, 'x'));
  write_tokens("foreign", 200, 400);
  const std::vector<std::pair<std::string, std::vector<std::string>>> table = {
      {"data.train=[\"absent\"]", {"data.train", "absent"}},
      {"data.train=[\"text.txt\"]", {"data.train", "smlp data prepare"}},
      {"data.train=[]", {"data.train", "smlp data prepare"}},
      {"data.valid=[\"absent\"]", {"data.valid", "absent"}},
      {"data.tokenizer=nowhere", {"data.tokenizer", "nowhere"}},
      {"data.tokenizer=", {"data.tokenizer", "vocab.json"}},
      {"model.context=200", {"200 tokens", "201 are needed", "shorten"}},
      {"model.vocabulary=100", {"model.vocabulary = 100", "257"}},
      {"data.train=[\"foreign\"]", {"token 39", "model.vocabulary is 320"}},
      {"model.experts=3", {"model.experts = 3", "does not divide"}},
      {"model.heads=3", {"model.heads = 3", "does not divide"}},
      {"model.contxt=3", {"model.contxt", "did you mean model.context?"}},
  };
  for (const auto& [override, words] : table) {
    const auto answer = smlp({"config", "check", "job.toml", "--set", override});
    EXPECT_EQ(answer.code, 78) << override << answer.err;
    for (const auto& word : words) EXPECT_THAT(answer.err, HasSubstr(word)) << override;
  }
  std::filesystem::resize_file(place / "train.bin", 100);
  EXPECT_EQ(smlp({"config", "check", "job.toml"}).code, 65) << "a damaged file is bad data";
}

TEST_F(Config, PathsCountFromWhereSmlpIsStarted) {
  std::filesystem::create_directories(place / "sub");
  for (const std::string name : {"job.toml", "train.bin", "train.idx", "train.json", "valid.bin", "valid.idx", "valid.json"}) {
    if (std::filesystem::exists(place / name)) std::filesystem::rename(place / name, place / "sub" / name);
  }
  const auto data = smlp({"config", "check", "sub/job.toml"});
  EXPECT_EQ(data.code, 78);
  EXPECT_THAT(data.err, AllOf(HasSubstr("train.bin is missing"), HasSubstr("there is sub/train.bin: start it there")));
  std::filesystem::create_directories(place / "sub/words");
  const auto tokenizer = smlp({"config", "check", "sub/job.toml", "--set", "data.tokenizer=words"});
  EXPECT_EQ(tokenizer.code, 78);
  EXPECT_THAT(tokenizer.err, HasSubstr("there is sub/words: start it there"));
  EXPECT_THAT(smlp({"config", "check", "sub/job.toml", "--set", "data.train=[\"absent\"]"}).err, Not(HasSubstr("sub/absent")));
}

TEST_F(Config, WrongValuesAreToldWithTheBoundThatTheyBreak) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"seed=9007199254740993", "at most 9000000000000000"},
      {"train.eval_every=2000000000000000", "at most 1000000000000000"},
      {"optimizer.learning_rate=nan", "it must be finite, at least 0"},
      {"optimizer.weight_decay=inf", "it must be finite, at least 0"},
      {"optimizer.betas=[0.9, nan]", "each must be finite, at least 0 and less than 1"},
      {"optimizer.betas=0.9", "optimizer.betas = 0.9 is a number with a fraction"},
      {"model.context=99999999999999999999", "the value is not TOML"},
      {"model.context=99999999999999999999", "a whole number is needed"},
      {"data.train=[train]", "the value is not TOML"},
      {"model.context=6\n5", "the value is not TOML"},
      {"model.context=big", "model.context = 'big' is a string, but a whole number is needed"},
      {"model.context=", "a whole number is needed"},
  };
  for (const auto& [override, words] : table) {
    const auto answer = smlp({"config", "check", "job.toml", "--set", override});
    EXPECT_EQ(answer.code, 78) << override;
    EXPECT_THAT(answer.err, HasSubstr(words)) << override;
  }
}

// `plan` once answered with negative bytes.
TEST_F(Config, SizesBeyondCountingAreRefused) {
  const std::vector<std::vector<std::string>> table = {
      {"model.width=1073741824", "model.hidden=1073741824", "model.experts=1"},
      {"model.context=1073741824"},
      {"train.global_batch=1073741824", "model.context=1048576", "model.dense_blocks=65536", "model.hidden=65536"},
  };
  for (auto words : table) {
    std::vector<std::string> command = {"plan", "job.toml"};
    for (const auto& override : words) command.insert(command.end(), {"--set", override});
    const auto answer = smlp(command, talking_worker(0));
    EXPECT_EQ(answer.code, 78) << words.front();
    EXPECT_THAT(answer.err, HasSubstr("job.toml: the sizes of the model are beyond counting: model.context = "));
  }
  const auto large = smlp({"plan", "job.toml", "--set", "model.width=16384", "--set", "model.hidden=65536", "--set",
                           "model.dense_blocks=96", "--set", "model.experts=1024", "--set", "model.context=4096", "--set",
                           "train.global_batch=4096"}, talking_worker(0));
  EXPECT_EQ(large.code, 0) << "a model of trillions of parameters can be planned: " << large.err;
}

TEST_F(Tools, PlanHandsTheResolvedJobToOneWorker) {
  const auto answer = smlp({"plan", "job.toml", "--ranks", "2", "--json"}, talking_worker(0));
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.out, AllOf(StartsWith("rank alone threads 1: plan --job "), HasSubstr("--json\n"),
                                HasSubstr("ranks = 2"), HasSubstr("vocabulary = 320"), HasSubstr("group_sequences = 2")));
}

TEST_F(Tools, PlanNeedsNoDataButAVocabulary) {
  const auto without = smlp({"plan", "job.toml", "--set", "data.tokenizer=nowhere"}, talking_worker(0));
  EXPECT_EQ(without.code, 78);
  EXPECT_THAT(without.err, HasSubstr("set model.vocabulary"));
  EXPECT_EQ(smlp({"plan", "job.toml", "--set", "data.tokenizer=nowhere", "--set", "model.vocabulary=512", "--set",
                  "data.train=[\"absent\"]"}, talking_worker(0)).code, 0);
}

TEST_F(Tools, TheWorkersExitCodeIsOurs) {
  EXPECT_EQ(smlp({"plan", "job.toml"}, talking_worker(70)).code, 70);
  const auto absent = smlp({"plan", "job.toml"}, "/nowhere/smlp-worker");
  EXPECT_EQ(absent.code, 69);
  EXPECT_THAT(absent.err, HasSubstr("/nowhere/smlp-worker"));
}

TEST_F(Tools, BenchHasReferenceSizesAndCompanyWhereItNeedsIt) {
  const auto step = smlp({"bench", "step", "--set", "train.precision=bf16"}, talking_worker(0));
  EXPECT_EQ(step.code, 0) << step.err;
  EXPECT_THAT(step.out, AllOf(StartsWith("rank alone threads 1: bench step --job "), HasSubstr("kind = \"gmlp\""),
                              HasSubstr("hidden = 2048"), HasSubstr("vocabulary = 4096"), HasSubstr("precision = \"bf16\""),
                              HasSubstr("global_batch = 4")));
  const auto scaling = smlp({"bench", "scaling", "--json"}, talking_worker(0));
  EXPECT_THAT(scaling.out, AllOf(HasSubstr("rank 0 threads 1: bench scaling"), HasSubstr("rank 1 threads 1: bench scaling"),
                                 HasSubstr("sparse_blocks = 2"), HasSubstr("global_batch = 8")));
  EXPECT_THAT(smlp({"bench", "scaling", "--ranks", "3"}, talking_worker(0)).out, HasSubstr("rank 2"));
  EXPECT_THAT(smlp({"bench", "kernels", "--job", "job.toml", "--ranks", "1"}, talking_worker(0)).out,
              AllOf(HasSubstr("context = 16"), Not(HasSubstr("rank 1"))));
}

TEST_F(Tools, EvalAndGenerateNeedACheckpoint) {
  const auto evaluated = smlp({"eval", "nowhere", "--data", "valid"}, talking_worker(0));
  EXPECT_EQ(evaluated.code, 78);
  EXPECT_THAT(evaluated.err, HasSubstr("nowhere"));
  EXPECT_EQ(smlp({"generate", "nowhere", "--prompt", "x"}, talking_worker(0)).code, 78);
}

// A shell was given the path as it stands, and took its time.
TEST_F(Tools, DoctorAsksAProgramWhoseFolderHasABlank) {
  const auto folder = place / "of mine; echo";
  std::filesystem::create_directory(folder);
  write("of mine; echo/prometheus", "#!/bin/sh\necho prometheus 9.9 >&2\n");
  std::filesystem::permissions(folder / "prometheus", std::filesystem::perms::owner_all);
  const std::string before = std::getenv("PATH");
  setenv("PATH", (folder.string() + ":" + before).c_str(), 1);
  const auto answer = smlp({"doctor"}, talking_worker(0));
  setenv("PATH", before.c_str(), 1);
  EXPECT_THAT(answer.out, HasSubstr((folder / "prometheus").string() + " (prometheus 9.9)\n"));
}

// The empty file lay in /tmp for good.
TEST_F(Tools, AJobForAWorkerThatCantBeWrittenLeavesNoFile) {
  std::filesystem::create_directory(place / "temporary");
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit few{1000, before.rlim_max};
  setenv("TMPDIR", (place / "temporary").c_str(), 1);
  setrlimit(RLIMIT_FSIZE, &few);
  const pid_t child = start({"plan", "job.toml"}, fake_worker());
  setrlimit(RLIMIT_FSIZE, &before);
  unsetenv("TMPDIR");
  const auto answer = finish(child);
  EXPECT_EQ(answer.code, 74) << answer.err;
  EXPECT_THAT(answer.err, HasSubstr("temporary/smlp-job-"));
  EXPECT_TRUE(std::filesystem::is_empty(place / "temporary"));
}

// A worker that has begun, and goes on until it is ended; as `bench checkpoint` it writes a folder.
class Interrupted : public test::CommandLine {
 protected:
  void SetUp() override {
    CommandLine::SetUp();
    if (place.empty()) return;
    std::signal(SIGHUP, SIG_DFL);  // which a test under nohup ignores, and so would smlp
    std::filesystem::create_directory(place / "temporary");
    setenv("TMPDIR", (place / "temporary").c_str(), 1);
    write("waiting.sh",
          "#!/bin/sh\nmkdir bench-checkpoint." + host_name() + ".$$.tmp\ntouch bench-checkpoint.*.tmp/raw begun\nexec sleep 60\n");
    std::filesystem::permissions(place / "waiting.sh", std::filesystem::perms::owner_all);
  }
  void TearDown() override {
    unsetenv("TMPDIR");
    CommandLine::TearDown();
  }
  // The exit code of `smlp bench WHAT`, to which the signal was sent once its worker had begun.
  int code_after(int signal, const std::string& what) {
    const pid_t child = start({"bench", what}, place / "waiting.sh");
    for (const double end = monotonic_seconds() + 20; !std::filesystem::exists(place / "begun") && monotonic_seconds() < end;) {
      sleep_seconds(0.01);
    }
    EXPECT_TRUE(std::filesystem::remove(place / "begun"));
    kill(child, signal);
    return finish(child).code;
  }
  int left() const {
    int count = 0;
    for (const auto& folder : {place, place / "temporary"}) {
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const auto name = entry.path().filename().string();
        count += name.starts_with("bench-checkpoint.") || name.starts_with("smlp-job-") ? 1 : 0;
      }
    }
    return count;
  }
};

// TERM and HUP left the job in TMPDIR, and each of the three what a checkpoint's benchmark had written, for good.
TEST_F(Interrupted, ABenchmarkLeavesNothing) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    EXPECT_EQ(code_after(signal, "checkpoint"), 128 + signal);
    EXPECT_EQ(left(), 0) << "signal " << signal;
  }
  EXPECT_EQ(code_after(SIGTERM, "scaling"), 128 + SIGTERM) << "two ranks, under mpirun";
}

TEST_F(Interrupted, WhatAKilledBenchmarkLeftGoesWithTheNext) {
  EXPECT_EQ(code_after(SIGKILL, "checkpoint"), 128 + SIGKILL);
  EXPECT_EQ(left(), 2);
  EXPECT_EQ(smlp({"bench", "checkpoint"}, talking_worker(0)).code, 0);
  EXPECT_EQ(left(), 0);
}

// "smlp: : No such file or directory"
TEST_F(Tools, AFolderForTemporaryFilesThatIsNotThereIsNamed) {
  setenv("TMPDIR", "/nonexistent", 1);
  const auto answer = smlp({"plan", "job.toml"}, talking_worker(0));
  unsetenv("TMPDIR");
  EXPECT_EQ(answer.code, 78);
  EXPECT_THAT(answer.err, AllOf(HasSubstr("the job for a worker"), HasSubstr("TMPDIR = /nonexistent"), HasSubstr("set TMPDIR")));
}

TEST_F(Tools, DoctorNamesWhatIsMissing) {
  const auto sound = smlp({"doctor", "--json"}, talking_worker(0));
  const auto document = nlohmann::json::parse(sound.out);
  EXPECT_EQ(document["sound"], sound.code == 0);
  const auto missing = smlp({"doctor"}, "/nowhere/smlp-worker");
  EXPECT_EQ(missing.code, 69);
  EXPECT_THAT(missing.out, HasSubstr("/nowhere/smlp-worker"));
}

}  // namespace
}  // namespace smlp
