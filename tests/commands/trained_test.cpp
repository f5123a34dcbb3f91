// `smlp checkpoint`, `eval` and `generate` on what a tiny run of the real worker leaves behind.
#include <gmock/gmock.h>

#include <cmath>
#include <regex>

#include "command_line.h"
#include "data/byte_alphabet.h"
#include "tests/without_rights.h"

namespace smlp {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
namespace fs = std::filesystem;

const std::string last = "runs/small/checkpoints/step-00000004", before = "runs/small/checkpoints/step-00000002";

// Trained once for all tests; each gets a copy of its own.
class Trained : public test::CommandLine {
 protected:
  static void TearDownTestSuite() { fs::remove_all(original()); }
  void SetUp() override {
    CommandLine::SetUp();
    if (IsSkipped()) return;
    if (!fs::exists(original())) train();
    fs::copy(original(), place / "runs", fs::copy_options::recursive);
  }
  void train() {
    const auto answer = smlp({"run", "job.toml", "--ranks", "1", "--set", "train.steps=4", "--set", "train.eval_every=2",
                              "--set", "checkpoint.every_steps=2"});
    ASSERT_EQ(answer.code, 0) << answer.err << test::contents(place / "runs/small/logs/attempt-0001/rank-0000.log");
    fs::rename(place / "runs", original());
  }
  static fs::path original() { return testing::TempDir() + "smlp-trained-" + std::to_string(getpid()); }

  json facts(std::vector<std::string> words) {
    words.push_back("--json");
    const auto answer = smlp(words);
    EXPECT_EQ(answer.code, 0) << answer.err;
    const auto document = json::parse(answer.out, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << "not one JSON document: " << answer.out;
    return document;
  }
  void change(const std::string& file, const std::function<void(std::string&)>& how) {
    auto bytes = test::contents(place / file);
    how(bytes);
    write(file, bytes);
  }
  // What `sh` makes of a line in which smlp is the program under test.
  test::Answer shell(const std::string& line) {
    const auto path = std::string(std::getenv("SMLP_BIN")) + ":" + std::getenv("PATH");
    const auto words = "cd '" + place.string() + "' && PATH='" + path + "' && { " + line + "; } >out 2>err </dev/null";
    const int status = std::system(words.c_str());
    return {WEXITSTATUS(status), test::contents(place / "out"), test::contents(place / "err")};
  }
};

TEST_F(Trained, LsTellsWhatARunHolds) {
  const auto all = facts({"checkpoint", "ls", "runs/small"});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0]["step"], 2);
  EXPECT_EQ(all[1]["step"], 4);
  EXPECT_EQ(all[1]["path"], last);
  EXPECT_EQ(all[1]["ranks"], 1);
  EXPECT_EQ(all[1]["valid"], true);
  EXPECT_EQ(all[1]["reason"], "");
  std::uintmax_t bytes = 0;
  for (const auto& file : fs::directory_iterator(place / last)) bytes += file.file_size();
  EXPECT_EQ(all[1]["bytes"], bytes);
  EXPECT_THAT(smlp({"checkpoint", "ls", "runs/small"}).out,
              AllOf(StartsWith("step-00000002 "), HasSubstr("\nstep-00000004 "), HasSubstr("1 ranks  sound")));
  EXPECT_EQ(facts({"checkpoint", "ls", "runs/small/checkpoints"}).size(), 2u);
}

// A live run's retention may delete a checkpoint between its choice and its opening: eval once failed then.
TEST_F(Trained, EvalOfARunWhoseCheckpointIsDeletedMeanwhileTakesItsNewest) {
  write("worker", "#!/bin/sh\nrm -rf " + last + "\nexec \"$SMLP_BIN/smlp-worker\" \"$@\"\n");
  fs::permissions(place / "worker", fs::perms::owner_all);
  const auto alone = smlp({"eval", before, "--data", "valid"});
  const auto answer = shell("SMLP_WORKER=$PWD/worker smlp eval runs/small --data valid");
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(answer.out, alone.out) << "of the checkpoint that is left";
  EXPECT_THAT(answer.err, HasSubstr("step-00000004 was deleted by its run meanwhile"));
}

// Its exit code was all that told of it.
TEST_F(Trained, ACommandSaysWhichSignalEndedItsWorker) {
  write("worker", "#!/bin/sh\nkill -KILL $$\n");
  fs::permissions(place / "worker", fs::perms::owner_all);
  const auto answer = shell("SMLP_WORKER=$PWD/worker smlp eval runs/small --data valid");
  EXPECT_EQ(answer.code, 128 + SIGKILL);
  EXPECT_THAT(answer.err, AllOf(HasSubstr("killed by signal 9 (SIGKILL)"), HasSubstr("memory")));
}

// It once said that there is no checkpoint in it, with exit code 0.
TEST_F(Trained, LsOfOneCheckpointTellsOfThatOne) {
  const auto one = facts({"checkpoint", "ls", last});
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0]["step"], 4);
  EXPECT_EQ(one[0]["valid"], true);
}

// Any folder once passed for a run without checkpoints.
TEST_F(Trained, LsRefusesAFolderThatIsNoRun) {
  fs::create_directories(place / "folder");
  for (const std::string path : {"folder", "nowhere", "job.toml"}) {
    const auto answer = smlp({"checkpoint", "ls", path});
    EXPECT_EQ(answer.code, 78) << path;
    EXPECT_THAT(answer.err, HasSubstr(path + " is not a run directory"));
  }
  fs::create_directories(place / "starting");
  write("starting/job.toml", "");
  EXPECT_EQ(facts({"checkpoint", "ls", "starting"}), json::array()) << "a run before its first checkpoint";
}

TEST_F(Trained, VerifyFindsEveryKindOfDamage) {
  const auto sound = facts({"checkpoint", "verify", "runs/small"});
  EXPECT_EQ(sound["valid"], true);
  EXPECT_EQ(sound["checkpoints"].size(), 2u);
  EXPECT_EQ(smlp({"checkpoint", "verify", last + "/"}).code, 0);

  struct Damage {
    std::string what, file;
    std::function<void(std::string&)> how;
  };
  const std::vector<Damage> table = {
      {"a flipped bit", "rank-0000.h5", [](std::string& bytes) { bytes[bytes.size() / 16] ^= 4; }},
      {"cut short", "rank-0000.h5", [](std::string& bytes) { bytes.resize(bytes.size() - 1); }},
      {"empty", "rank-0000.h5", [](std::string& bytes) { bytes.clear(); }},
      {"a manifest cut short", "manifest.json", [](std::string& bytes) { bytes.resize(bytes.size() / 2); }},
      {"an empty manifest", "manifest.json", [](std::string& bytes) { bytes.clear(); }},
      {"a manifest of another step", "manifest.json",
       [](std::string& bytes) { bytes = std::regex_replace(bytes, std::regex("\"step\": ?4"), "\"step\":5"); }},
  };
  for (const auto& damage : table) {
    const auto file = last + "/" + damage.file;
    const auto good = test::contents(place / file);
    change(file, damage.how);
    ASSERT_NE(test::contents(place / file), good) << damage.what;
    const auto answer = smlp({"checkpoint", "verify", last});
    EXPECT_EQ(answer.code, 65) << damage.what << ": " << answer.err;
    EXPECT_THAT(answer.err, HasSubstr(damage.file)) << damage.what;
    const auto of_run = smlp({"checkpoint", "verify", "runs/small", "--json"});
    EXPECT_EQ(of_run.code, 65) << damage.what;
    const auto document = json::parse(of_run.out);
    EXPECT_EQ(document["valid"], false) << damage.what;
    EXPECT_EQ(document["checkpoints"][0]["valid"], true) << damage.what;
    EXPECT_EQ(document["checkpoints"][1]["valid"], false) << damage.what;
    EXPECT_THAT(document["checkpoints"][1]["reason"].get<std::string>(), HasSubstr(damage.file)) << damage.what;
    EXPECT_EQ(smlp({"checkpoint", "digest", last}).code, 65) << damage.what;
    write(file, good);
  }
  EXPECT_EQ(smlp({"checkpoint", "verify", last}).code, 0) << "mended";

  for (const std::string file : {"rank-0000.h5", "manifest.json"}) {
    fs::rename(place / last / file, place / "aside");
    const auto answer = smlp({"checkpoint", "verify", last});
    EXPECT_EQ(answer.code, 65) << file;
    EXPECT_THAT(answer.err, HasSubstr(file));
    fs::rename(place / "aside", place / last / file);
  }
  EXPECT_EQ(smlp({"checkpoint", "verify", "nowhere"}).code, 78);
  EXPECT_EQ(smlp({"checkpoint", "verify", "job.toml"}).code, 78);
}

TEST_F(Trained, ACheckpointThatCannotBeReadIsNotSaidToBeCorrupt) {
  fs::permissions(place, fs::perms::all);
  fs::permissions(place / last / "rank-0000.h5", fs::perms::none);
  for (const std::string& path : {last, std::string("runs/small")}) {
    const auto child = [&] {
      const test::WithoutRights nobody;
      return start({"checkpoint", "verify", path});
    }();
    const auto answer = finish(child);
    if (answer.code == 127) GTEST_SKIP() << "nobody may enter the folder of smlp";
    EXPECT_EQ(answer.code, 74) << answer.err;
    EXPECT_THAT(answer.err, HasSubstr("rank-0000.h5 failed: Permission denied"));
  }
}

// What can't even be looked at ended `run` before any rank could pass it over.
TEST_F(Trained, ARunGoesOnBesideACheckpointThatCannotBeLookedAt) {
  fs::remove(place / last / "manifest.json");
  fs::create_symlink("manifest.json", place / last / "manifest.json");
  const std::string loop = "runs/small/checkpoints/step-00000009";
  fs::create_directory_symlink("step-00000009", place / loop);
  const auto answer = smlp({"run", "job.toml", "--ranks", "1", "--set", "train.steps=6", "--set", "train.eval_every=2",
                            "--set", "checkpoint.every_steps=2"});
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(smlp({"checkpoint", "verify", "runs/small/checkpoints/step-00000006"}).code, 0);
}

// It counted as absent: the run trained on the data that it had left out after a spike of its loss.
TEST_F(Trained, PassedOverDataThatCannotBeReadIsNotNone) {
  fs::create_symlink("passed_over.json", place / "runs/small/passed_over.json");
  const auto answer = smlp({"run", "job.toml", "--ranks", "1", "--max-restarts", "0", "--set", "train.steps=6", "--set",
                            "train.eval_every=2", "--set", "checkpoint.every_steps=2"});
  EXPECT_EQ(answer.code, 74) << answer.err;
  EXPECT_THAT(answer.err, HasSubstr("passed_over.json failed: Too many levels of symbolic links"));
  EXPECT_FALSE(fs::exists(place / "runs/small/checkpoints/step-00000006"));
}

TEST_F(Trained, APathThatIsNoneIsAConfigurationErrorThatNamesIt) {
  const std::string long_name(300, 'y');
  fs::create_symlink("loop", place / "loop");
  for (const std::string& path : {long_name, std::string("loop/run")}) {
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
             {"checkpoint", "ls", path}, {"checkpoint", "show", path}, {"eval", path, "--data", "valid"}, {"config", "check", path}}) {
      const auto answer = smlp(words);
      EXPECT_EQ(answer.code, 78) << words[0] << " " << words[1] << ": " << answer.err;
      EXPECT_THAT(answer.err, AllOf(HasSubstr(path), Not(HasSubstr("filesystem error")))) << words[0];
    }
  }
  const auto data = smlp({"config", "check", "job.toml", "--set", "data.train=[\"" + long_name + "\"]"});
  EXPECT_EQ(data.code, 78) << data.err;
  EXPECT_THAT(data.err, HasSubstr("--set data.train"));
}

// A job of width 8 was refused for 32 experts that it does not have; and of one with two ranks each told all.
TEST_F(Trained, TheRoutingBenchmarkTakesAnyJobsSizes) {
  const auto answer = smlp({"bench", "routing", "--job", "job.toml", "--json"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(json::parse(answer.out)["assignments"][0]["step"]["width"], 32);
}

// A file of three tokens among others ended the run at its first evaluation, though another could be predicted.
TEST_F(Trained, ATextThatPartialPredictionPredictsNothingOfIsRefusedBeforeTheRun) {
  write_tokens("short", 4);  // with its end of text; the first three of 16 are the prefix
  const std::vector<std::string> words = {"config", "check", "job.toml", "--set", "model.kind=smlp", "--set",
                                          "routing.channels=partial", "--set", "data.valid=[\"valid\", \"short\"]"};
  const auto answer = smlp(words);
  EXPECT_EQ(answer.code, 78);
  EXPECT_THAT(answer.err, AllOf(HasSubstr("--set data.valid"), HasSubstr("short")));
}

// A log whose disk was full for a moment made a finished job of SLURM's a failed one.
TEST_F(Trained, ARunWhoseWordsAreLostIsDoneAllTheSame) {
  const auto answer = shell("smlp run job.toml --ranks 1 --run-dir other --set train.steps=2 >/dev/full");
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(shell("smlp run job.toml --ranks 1 --run-dir third --set train.steps=2 | head -c 1 >/dev/null").code, 0);
  EXPECT_TRUE(fs::exists(place / "third/checkpoints/step-00000002"));
}

TEST_F(Trained, WhatTakesARunTakesTheNewestThatHolds) {
  change(last + "/rank-0000.h5", [](std::string& bytes) { bytes[bytes.size() / 16] ^= 1; });
  const auto shown = smlp({"checkpoint", "show", "runs/small", "--json"});
  EXPECT_EQ(shown.code, 0);
  EXPECT_EQ(json::parse(shown.out)["step"], 2);
  EXPECT_THAT(shown.err, AllOf(HasSubstr("step-00000004 is passed over"), HasSubstr("rank-0000.h5")));
  EXPECT_EQ(facts({"eval", "runs/small", "--data", "valid"})["checkpoint"], before);
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"eval", "runs/small", "--data", "valid"}, {"generate", "runs/small", "--prompt", "a", "--tokens", "1"},
           {"check", "causality", "runs/small"}, {"run", "job.toml", "--ranks", "1", "--run-dir", "runs/new", "--init-from", "runs/small"}}) {
    const auto answer = smlp(words);
    EXPECT_EQ(answer.code, 0) << words[0] << answer.err;
    EXPECT_THAT(answer.err, HasSubstr("step-00000004 is passed over")) << words[0] << " once took the older one in silence";
  }
  EXPECT_EQ(smlp({"eval", last, "--data", "valid"}).code, 65) << "named outright, it is not replaced by another";
  EXPECT_EQ(smlp({"generate", last, "--prompt", "a"}).code, 65);
}

TEST_F(Trained, ShowTellsRunStateAndTensors) {
  const auto document = facts({"checkpoint", "show", "runs/small"});
  EXPECT_EQ(document["step"], 4);
  EXPECT_EQ(document["run_state"]["integers"]["step"], json({4}));
  EXPECT_EQ(document["run_state"]["integers"]["tokens"], json({4 * 4 * 16}));
  EXPECT_THAT(document["run_state"]["texts"]["job"].get<std::string>(), HasSubstr("model.width = 8"));
  bool found = false;
  for (const auto& tensor : document["tensors"]) {
    if (tensor["name"] != "embed.weight") continue;
    found = true;
    EXPECT_EQ(tensor["dtype"], "f32");
    EXPECT_EQ(tensor["shape"], json({320, 8}));
  }
  EXPECT_TRUE(found) << document["tensors"];
  const auto text = smlp({"checkpoint", "show", last}).out;
  EXPECT_THAT(text, AllOf(HasSubstr(last + ": step 4, written by attempt 1 on 1 ranks"), HasSubstr("  step = 4\n"),
                          HasSubstr("  job\n    name = \"small\"\n    seed = 1\n"), HasSubstr("embed.weight")));
}

TEST_F(Trained, DiffTellsWhatDiffersAndByHowMuch) {
  fs::copy(place / last, place / "copy", fs::copy_options::recursive);
  const auto same = smlp({"checkpoint", "diff", "runs/small", "copy"});
  EXPECT_EQ(same.code, 0);
  EXPECT_EQ(same.out, "identical: every tensor and the run state, bit for bit\n");
  const auto nothing = facts({"checkpoint", "diff", "runs/small", "copy"});
  EXPECT_EQ(nothing["identical"], true);
  EXPECT_EQ(nothing["differences"], json::array());

  const auto other = smlp({"checkpoint", "diff", last, before});
  EXPECT_EQ(other.code, 1);
  EXPECT_THAT(other.out, AllOf(HasSubstr("run state: integers.step: 4 against 2\n"), HasSubstr("embed.weight: first "
                               "differs at ["), HasSubstr("largest difference")));
  const auto listed = smlp({"checkpoint", "diff", last, before, "--json"});
  EXPECT_EQ(listed.code, 1);
  const auto document = json::parse(listed.out);
  EXPECT_EQ(document["identical"], false);
  bool found = false;
  for (const auto& difference : document["differences"]) {
    if (difference["name"] != "embed.weight") continue;
    found = true;
    EXPECT_GT(difference["elements"], 0);
    EXPECT_LE(difference["elements"], 320 * 8);
    EXPECT_GT(difference["largest"], 0.0);
    EXPECT_LT(difference["largest"], 0.1);
  }
  EXPECT_TRUE(found);

  change("copy/rank-0000.h5", [](std::string& bytes) { bytes[bytes.size() / 16] ^= 1; });
  EXPECT_EQ(smlp({"checkpoint", "diff", last, "copy"}).code, 65) << "a damaged one is not merely different";
  EXPECT_EQ(smlp({"checkpoint", "diff", last, "nowhere"}).code, 78);
  EXPECT_EQ(smlp({"checkpoint", "diff", last}).code, 64);
}

TEST_F(Trained, DigestsOfTensorsDoNotDependOnTheLayout) {
  const auto alone = facts({"checkpoint", "digest", "runs/small"});
  EXPECT_THAT(alone["all"].get<std::string>(), testing::MatchesRegex("[0-9a-f]{32}"));
  EXPECT_THAT(smlp({"checkpoint", "digest", last}).out, HasSubstr(alone["all"].get<std::string>() + "  all\n"));
  EXPECT_NE(facts({"checkpoint", "digest", before})["all"], alone["all"]);

  // A step that changes no weight: each layout saves what all of them begin with.
  std::vector<json> weights;
  for (const std::string ranks : {"1", "2", "4"}) {
    const auto run = smlp({"run", "job.toml", "--run-dir", "on" + ranks, "--ranks", ranks, "--set", "train.steps=1", "--set",
                           "train.micro_batch=1", "--set", "optimizer.learning_rate=0", "--set", "schedule.initial_rate=0",
                           "--set", "data.valid=[]"});
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_EQ(facts({"checkpoint", "ls", "on" + ranks})[0]["ranks"], std::stoi(ranks));
    json kept;
    const auto digests = facts({"checkpoint", "digest", "on" + ranks});
    for (const auto& [name, digest] : digests["tensors"].items()) {
      if (!name.starts_with("adam.")) kept[name] = digest;
    }
    weights.push_back(kept);
  }
  EXPECT_GT(weights[0].size(), 20u);
  EXPECT_EQ(weights[0], weights[1]);
  EXPECT_EQ(weights[0], weights[2]);
  const auto diff = smlp({"checkpoint", "diff", "on1", "on4"});
  EXPECT_THAT(diff.out, Not(HasSubstr("\nembed.weight"))) << "the weights are the same, whoever wrote them";
}

TEST_F(Trained, EvalAgreesWithTheRunAndWithItself) {
  const auto newest = facts({"eval", "runs/small", "--data", "valid"});
  const double loss = newest["loss"];
  double of_run = 0;
  std::ifstream lines(place / "runs/small/metrics.jsonl");
  for (std::string line; std::getline(lines, line);) of_run = json::parse(line).value("validation_loss", of_run);
  EXPECT_NEAR(loss, of_run, 1e-6);
  EXPECT_NEAR(newest["perplexity"], std::exp(loss), 1e-6 * std::exp(loss));
  EXPECT_EQ(newest["tokens"], 39) << "of 40; the first has nothing before it";
  EXPECT_GT(newest["bits_per_byte"], 0.0);
  const auto one = facts({"eval", before, "--data", "valid"});
  EXPECT_NE(one["loss"], newest["loss"]);
  EXPECT_EQ(one["checkpoint"], before);
  EXPECT_NEAR(facts({"eval", "runs/small", "--data", "valid", "--ranks", "2"})["loss"], loss, 1e-5);
  EXPECT_THAT(smlp({"eval", last, "--data", "valid"}).out,
              AllOf(HasSubstr("perplexity "), HasSubstr(" bits a byte, 39 tokens\n")));
}

// Each of N ranks sought and verified a checkpoint by itself, N + 1 times in all, and beside a live run not all the same one.
TEST_F(Trained, AWorkerLoadsTheCheckpointItIsGivenAndSeeksNone) {
  EXPECT_EQ(shell("smlp-worker eval --checkpoint " + before + " --data valid").code, 0);
  const auto sought = shell("smlp-worker eval --checkpoint runs/small --data valid");
  EXPECT_NE(sought.code, 0);
  EXPECT_THAT(sought.err, HasSubstr("runs/small: manifest.json is missing"));
}

// It had a loss of 0 and a perplexity of 1.
TEST_F(Trained, ATextOfOneTokenHasNoLoss) {
  write_tokens("one", 1);
  const auto answer = shell("smlp-worker eval --checkpoint " + last + " --data one");
  EXPECT_EQ(answer.code, 78) << answer.out;
  EXPECT_THAT(answer.err, HasSubstr("two are needed for a loss"));
}

// Every rank once tripped over a token that the model has no row for (70), or judged ids of another vocabulary.
TEST_F(Trained, EvalRefusesDataOfAnotherTokenizer) {
  write_tokens("foreign", 900, 400);
  const auto beyond = smlp({"eval", "runs/small", "--data", "foreign", "--ranks", "2"});
  EXPECT_EQ(beyond.code, 78);
  EXPECT_THAT(beyond.err, AllOf(StartsWith("smlp: foreign holds token 399, but the model"), HasSubstr("knows 320")));
  EXPECT_EQ(std::count(beyond.err.begin(), beyond.err.end(), '\n'), 1) << beyond.err;

  write_tokens("other", 90, 300);
  write("other.json", R"({"tokenizer": "bpe", "fingerprint": "of another", "vocabulary": 300, "tokens": 90, "bytes": 200})");
  const auto other = smlp({"eval", "runs/small", "--data", "other"});
  EXPECT_EQ(other.code, 78);
  EXPECT_THAT(other.err, HasSubstr("other was prepared with another tokenizer (bpe) than bytes"));

  write_tokens("one", 0);
  const auto one = smlp({"eval", "runs/small", "--data", "one"});
  EXPECT_NE(one.code, 0);
  EXPECT_NE(one.code, 70) << one.err;
  EXPECT_EQ(smlp({"eval", "runs/small", "--data", "absent"}).code, 78);
  fs::resize_file(place / "valid.bin", 10);
  EXPECT_EQ(smlp({"eval", "runs/small", "--data", "valid"}).code, 65);
}

// A text of no bytes had 0 bits a byte; notes of another file gave 25 without a word.
TEST_F(Trained, EvalHasBitsAByteOnlyOfBytesThatItKnows) {
  write("valid.json", R"({"bytes": 0})");
  EXPECT_TRUE(facts({"eval", "runs/small", "--data", "valid"})["bits_per_byte"].is_null());
  EXPECT_THAT(smlp({"eval", "runs/small", "--data", "valid"}).out, HasSubstr(", - bits a byte, 39 tokens\n"));
  fs::remove(place / "valid.json");
  const auto counted = smlp({"eval", "runs/small", "--data", "valid"});
  write("valid.json", R"({"bytes": 10, "tokens": 5})");
  const auto strange = smlp({"eval", "runs/small", "--data", "valid"});
  EXPECT_EQ(strange.code, 0);
  EXPECT_EQ(strange.out, counted.out) << "it once believed the 10 bytes: 25 bits a byte";
  EXPECT_THAT(strange.err, HasSubstr("valid.json is of another file: it says 5 tokens, and valid.idx has 40"));
}

// It trained, and could then be neither evaluated nor used: "vocab.json has no token <|endoftext|>". And an id that the
// vocabulary skips was drawn, which no text stands for.
TEST_F(Trained, ATokenizerMayLackAnEndOfTextAndSkipIds) {
  json vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary[spell_bytes(std::string(1, static_cast<char>(byte)))] = byte;
  vocabulary["abc"] = 700;
  fs::create_directory(place / "bpe");
  write("bpe/vocab.json", vocabulary.dump());
  write("bpe/merges.txt", "");
  write_tokens("train", 200, 256);
  write_tokens("valid", 40, 256);
  const auto run = smlp({"run", "job.toml", "--run-dir", "bare", "--ranks", "1", "--set", "data.tokenizer=bpe", "--set",
                         "train.steps=1"});
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_GT(facts({"eval", "bare", "--data", "valid"})["bits_per_byte"], 0.0);
  const auto text = smlp({"generate", "bare", "--prompt", "a", "--temperature", "1000", "--tokens", "300"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_GE(text.out.size(), 300u) << "nothing ends it early";
  EXPECT_EQ(smlp({"generate", "bare", "--prompt", "a", "--temperature", "0", "--tokens", "3"}).code, 0);
  const auto empty = smlp({"generate", "bare", "--prompt", ""});
  EXPECT_EQ(empty.code, 78);
  EXPECT_THAT(empty.err, HasSubstr("an empty prompt stands for <|endoftext|>, which the tokenizer bpe lacks"));
}

TEST_F(Trained, CausalityIsCheckedWithACheckpointsWeights) {
  const auto document = facts({"check", "causality", "runs/small"});
  EXPECT_EQ(document["causal"], true);
  EXPECT_EQ(document["weights"], last);
  EXPECT_EQ(document["tensors_randomised"], 0);
  EXPECT_EQ(facts({"check", "causality", before, "--set", "routing.evaluation_capacity_factor=1.0"})["weights"], before);
  const auto wider = smlp({"check", "causality", last, "--set", "model.width=16"});
  EXPECT_EQ(wider.code, 78);
  EXPECT_THAT(wider.err, AllOf(HasSubstr("embed.weight"), HasSubstr("--set")));
  change(last + "/rank-0000.h5", [](std::string& bytes) { bytes[bytes.size() / 16] ^= 4; });
  EXPECT_EQ(smlp({"check", "causality", last}).code, 65) << "damaged weights are no weights";
}

TEST_F(Trained, ComparesWhatTheRunSaysOfItself) {
  const auto document = facts({"compare", "runs/small"});
  const auto& run = document["runs"][0];
  EXPECT_EQ(run["name"], "small");
  EXPECT_EQ(run["state"], "done");
  EXPECT_EQ(run["step"], 4);
  EXPECT_EQ(run["evaluations"].size(), 3u) << "steps 0, 2 and 4";
  const auto plan = facts({"plan", "job.toml", "--ranks", "1"});
  EXPECT_EQ(run["parameters"], plan["parameters"]["total"]);
  EXPECT_EQ(run["forward_macs_per_token"], plan["forward_macs"]["paper"].get<std::int64_t>() / 32);
  EXPECT_GT(run["training_seconds"], 0.0);
  EXPECT_GE(run["expert_balance"], 1.0);
  EXPECT_GT(run["routing_agreement"], 0.0);
  EXPECT_LE(run["routing_agreement"], 1.0);
}

TEST_F(Trained, PlansForGpusWithoutOne) {
  const std::vector<std::string> plan = {"plan", "job.toml", "--ranks", "1", "--set", "train.micro_batch=128", "--set",
                                         "train.global_batch=128"};
  auto for_gpus = plan;
  for_gpus.insert(for_gpus.end(), {"--set", "cluster.device=cuda"});
  const auto here = facts(plan), there = facts(for_gpus);
  EXPECT_GT(there["memory_bytes_per_rank"]["activations"], here["memory_bytes_per_rank"]["activations"]) << "more rows of logits at once";
  EXPECT_EQ(there["memory_bytes_per_rank"]["parameters"], here["memory_bytes_per_rank"]["parameters"]);
}

TEST_F(Trained, EvaluationsTellWhereTrainingWouldSendTheTokens) {
  std::size_t evaluations = 0;
  std::ifstream lines(place / "runs/small/events.jsonl");
  for (std::string line; std::getline(lines, line);) {
    const auto event = json::parse(line);
    if (event["event"] != "evaluation") continue;
    ++evaluations;
    EXPECT_THAT(event["detail"].get<std::string>(), HasSubstr(" % of the tokens go where training would send them"));
    ASSERT_EQ(event["routing_agreement_blocks"].size(), 2u);
    double sum = 0;
    for (const auto& block : event["routing_agreement_blocks"]) sum += block["share"].get<double>();
    EXPECT_NEAR(event["routing_agreement"], sum / 2, 1e-12);
  }
  EXPECT_EQ(evaluations, 3u);
  const auto hashed = smlp({"run", "job.toml", "--run-dir", "hashed", "--ranks", "2", "--set", "model.kind=hash", "--set",
                            "train.steps=1"});
  ASSERT_EQ(hashed.code, 0) << hashed.err;
  EXPECT_EQ(facts({"compare", "hashed"})["runs"][0]["routing_agreement"], 1.0) << "a table is a table";
  const auto dense = smlp({"run", "job.toml", "--run-dir", "dense", "--ranks", "1", "--set", "model.kind=gmlp", "--set",
                           "train.steps=1"});
  ASSERT_EQ(dense.code, 0) << dense.err;
  EXPECT_TRUE(facts({"compare", "dense"})["runs"][0]["routing_agreement"].is_null());
}

TEST_F(Trained, GenerateGoesOnFromThePrompt) {
  const std::vector<std::string> words = {"generate", "runs/small", "--prompt", "ab", "--tokens", "12", "--seed", "3"};
  const auto text = smlp(words);
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out, StartsWith("ab"));
  EXPECT_EQ(text.err, "");
  EXPECT_EQ(smlp(words).out, text.out) << "the same seed";
  EXPECT_NE(smlp({"generate", "runs/small", "--prompt", "ab", "--tokens", "12", "--seed", "4"}).out, text.out);
  const auto likeliest = smlp({"generate", last, "--prompt", "ab", "--tokens", "6", "--temperature", "0"}).out;
  EXPECT_EQ(smlp({"generate", last, "--prompt", "ab", "--tokens", "6", "--top-k", "1"}).out, likeliest);
  EXPECT_EQ(smlp({"generate", last, "--prompt", "ab", "--tokens", "0"}).out, "ab\n");
  EXPECT_THAT(smlp({"generate", last, "--prompt", "--tokens", "--tokens", "1"}).out, StartsWith("--tokens"));
}

// It once took the next option for the prompt, and ended with 64.
TEST_F(Trained, GenerateTakesAnEmptyPrompt) {
  const auto text = smlp({"generate", last, "--prompt", "", "--tokens", "0"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(text.out, "\n");
}

TEST_F(Trained, GenerateTellsWhereItSeeksTheTokenizer) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "the cat and the hat ";
  write("text.txt", text);
  ASSERT_EQ(smlp({"data", "train-tokenizer", "--input", "text.txt", "--vocabulary", "262", "--output", "words"}).code, 0);
  ASSERT_EQ(smlp({"run", "job.toml", "--run-dir", "worded", "--ranks", "1", "--set", "data.tokenizer=words", "--set",
                  "train.steps=1"}).code, 0);
  EXPECT_EQ(smlp({"generate", "worded", "--prompt", "the", "--tokens", "1"}).code, 0);
  fs::rename(place / "words", place / "elsewhere");
  const auto answer = smlp({"generate", "worded", "--prompt", "the"});
  EXPECT_EQ(answer.code, 78);
  EXPECT_THAT(answer.err, AllOf(HasSubstr("there is no tokenizer words"), HasSubstr("generate there")));
}

// Once the worker's last words were lost with exit code 0.
TEST_F(Trained, OutputThatCannotBeWrittenIsAFailure) {
  for (const std::string line : {"smlp eval runs/small --data valid", "smlp generate runs/small --prompt a --tokens 2",
                                 "smlp plan job.toml --json"}) {
    const auto answer = shell(line + " > /dev/full");
    EXPECT_EQ(answer.code, 74) << line;
    EXPECT_THAT(answer.err, HasSubstr("writing to the standard output failed")) << line;
  }
  for (const std::string line : {"smlp status runs/small", "smlp status runs/small --json", "smlp logs runs/small",
                                 "smlp --version", "smlp plan --paper"}) {  // what fails before the last flush
    const auto answer = shell(line + " > /dev/full");
    EXPECT_EQ(answer.code, 74) << line;
    EXPECT_THAT(answer.err, AllOf(StartsWith("smlp"), Not(HasSubstr("defect")))) << line;
  }
}

// It was ignored, as Ctrl-C is by a command whose worker gets it too.
TEST_F(Trained, AnInterruptFromAnotherProcessReachesTheWorker) {
  const auto began = monotonic_seconds();
  const auto answer = shell("smlp bench step >words & pid=$!; sleep 1; kill -INT $pid; wait $pid");
  EXPECT_EQ(answer.code, 130) << answer.err;
  EXPECT_LT(monotonic_seconds() - began, 20);
}

TEST_F(Trained, NamesThatAreNoUtf8AreShownAsFarAsTheyAre) {
  fs::rename(place / "runs", place / "runs\xff");
  for (const std::string line : {"smlp eval runs* --data valid --json", "smlp checkpoint ls runs*/small --json",
                                 "smlp check causality runs*/small --json"}) {
    const auto answer = shell(line);
    EXPECT_THAT(answer.err, Not(HasSubstr("json.exception"))) << line;
  }
  const auto answer = shell("smlp eval runs*/small --data valid --json");
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_FALSE(json::parse(answer.out, nullptr, false).is_discarded()) << answer.out;
  EXPECT_EQ(shell("cp job.toml x\xff.toml; smlp run x*.toml --ranks 1 --run-dir other --set train.steps=2").code, 0);
}

TEST_F(Trained, AReaderThatLeavesEndsTheCommandQuietly) {
  for (const std::string line : {"smlp checkpoint digest runs/small", "smlp plan job.toml", "smlp config keys",
                                 "smlp generate runs/small --prompt a --tokens 200"}) {
    const auto answer = shell(line + " | head -c 1 >/dev/null");
    EXPECT_EQ(answer.err, "") << line;
  }
}

TEST_F(Trained, InitFromTakesWeightsAndRefusesWhatDoesNotFit) {
  const auto begun = smlp({"run", "job.toml", "--run-dir", "next", "--ranks", "1", "--set", "train.steps=1", "--init-from",
                           "runs/small", "--set", "optimizer.learning_rate=0", "--set", "schedule.initial_rate=0"});
  ASSERT_EQ(begun.code, 0) << begun.err;
  EXPECT_THAT(json::parse(test::contents(place / "next/run.json"))["init_from"].get<std::string>(), HasSubstr(last));
  EXPECT_EQ(facts({"checkpoint", "digest", "next"})["tensors"]["embed.weight"],
            facts({"checkpoint", "digest", last})["tensors"]["embed.weight"]);
  const auto again = smlp({"run", "job.toml", "--run-dir", "next", "--ranks", "1", "--set", "train.steps=1", "--init-from",
                           "runs/small", "--set", "optimizer.learning_rate=0", "--set", "schedule.initial_rate=0"});
  EXPECT_EQ(again.code, 0);
  EXPECT_THAT(again.out, HasSubstr("--init-from is not used"));
  const auto wider = smlp({"run", "job.toml", "--run-dir", "wide", "--ranks", "1", "--set", "model.width=16", "--init-from",
                           "runs/small"});
  EXPECT_THAT(wider.code, testing::AnyOf(65, 78)) << wider.err << wider.out;
  EXPECT_THAT(wider.err, HasSubstr("embed.weight"));
}

}  // namespace
}  // namespace smlp
