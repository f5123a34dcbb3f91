// `smlp checkpoint`, and runs that go on, on what a tiny run of the real worker leaves behind.
#include <gmock/gmock.h>

#include <regex>

#include "tests/checkpoint/newer_format.h"
#include "trained_run.h"

namespace smlp {
namespace {

using nlohmann::json;
using test::Trained;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
namespace fs = std::filesystem;

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

// A worker that had its say, or was told to end, was started again with the next checkpoint.
TEST_F(Trained, WhatEndsOtherwiseThanByACheckpointIsNotTriedAgainThoughThatIsGone) {
  for (const int code : {1, 76, 130, 141}) {
    TearDown();
    SetUp();
    write("worker", "#!/bin/sh\nrm -rf " + last + "\necho told\nexit " + std::to_string(code) + "\n");
    fs::permissions(place / "worker", fs::perms::owner_all);
    const auto answer = shell("SMLP_WORKER=$PWD/worker smlp check causality runs/small");
    EXPECT_EQ(answer.code, code) << answer.err;
    EXPECT_EQ(answer.out, "told\n");
    EXPECT_THAT(answer.err, Not(HasSubstr("was deleted by its run")));
  }
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
    const auto answer = finish(start({"checkpoint", "verify", path}, "", Rights::nobody));
    if (answer.code == 127) GTEST_SKIP() << "nobody may enter the folder of smlp";
    EXPECT_EQ(answer.code, 74) << answer.err;
    EXPECT_THAT(answer.err, HasSubstr("rank-0000.h5 failed: Permission denied"));
  }
}

// "going on from checkpoint 4", said the terminal and attempts.jsonl, and never a word of why it was not that one.
TEST_F(Trained, ARunThatFallsBackSaysSo) {
  fs::resize_file(place / last / "rank-0000.h5", 50);
  const auto answer = smlp({"run", "job.toml", "--ranks", "1", "--set", "train.steps=6", "--set", "train.eval_every=2",
                            "--set", "checkpoint.every_steps=2"});
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.out, AllOf(HasSubstr("\ncheckpoint rejected: step-00000004: rank-0000.h5 has 50 bytes; the manifest says "),
                                HasSubstr("\nattempt 2: going on from checkpoint 2\n"), Not(HasSubstr("from checkpoint 4"))));
  std::ifstream lines(place / "runs/small/attempts.jsonl");
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  EXPECT_EQ(json::parse(line)["from_checkpoint"], 2) << line;
}

// An older smlp, started by mistake, moved it aside as damaged, went on from the one before it, and deleted it in the end.
TEST_F(Trained, ARunDoesNotGoOnBesideACheckpointOfANewerFormat) {
  test::make_newer_format(place / last);
  const auto before_it = files();
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"run", "job.toml", "--ranks", "1", "--set", "train.steps=6"}, {"submit", "job.toml", "--ranks", "1", "--dry-run"}}) {
    const auto answer = smlp(words);
    EXPECT_EQ(answer.code, 78) << answer.out;
    EXPECT_THAT(answer.err, AllOf(StartsWith("smlp: "), HasSubstr(last + " is of checkpoint format version 2, and this smlp ("),
                                  HasSubstr("reads versions up to 1: go on with the newer smlp that wrote it")));
    EXPECT_EQ(files(), before_it) << words[0];
  }
  const auto listed = facts({"checkpoint", "ls", "runs/small"});
  EXPECT_THAT(listed[1]["reason"].get<std::string>(), HasSubstr("it is of format version 2; this program reads versions up to 1"));
  EXPECT_EQ(smlp({"checkpoint", "verify", "runs/small"}).code, 65);
}

// It was compared with the job of the checkpoint before, and the ranks went on from this one with another learning rate.
TEST_F(Trained, ARunDoesNotGoOnFromACheckpointWhoseJobANewerVersionWrote) {
  test::change_sealed(place / last / "manifest.json", [](json& manifest) {
    std::string& job = manifest["run_state"]["texts"]["job"].get_ref<std::string&>();
    job.insert(job.find("optimizer.learning_rate"), "optimizer.lion = true\n");
  });
  const auto before_it = files();
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"run", "job.toml", "--ranks", "1", "--set", "train.steps=6"}, {"submit", "job.toml", "--ranks", "1", "--dry-run"}}) {
    const auto answer = smlp(words);
    EXPECT_EQ(answer.code, 78) << answer.out;
    EXPECT_THAT(answer.err, AllOf(StartsWith("smlp: "), HasSubstr("does not understand the job that "), HasSubstr(last + " is of"),
                                  HasSubstr("optimizer.lion"), HasSubstr("Go on with that version")));
    EXPECT_EQ(files(), before_it) << words[0];
  }
}

// The ranks refused it, but job.toml had it already, and the change was logged: the run was spoilt for its own job file, too.
TEST_F(Trained, AChangeUnderWhichNoCheckpointCouldBeReadIsRefusedBeforeAnythingIsWritten) {
  const auto before_it = files();
  const std::vector<std::vector<std::string>> table = {
      {"model.width", "16", "tensor ", "] in this run;"},
      {"model.dense_blocks", "5", "it holds no tensor blocks.", "changed model in this run has;"},
      {"train.precision", "f64", "tensor ", "] there, f64 ["}};
  for (const auto& change : table) {
    const auto answer = smlp({"run", "job.toml", "--ranks", "1", "--set", "train.eval_every=2", "--accept-change", change[0], "--set",
                              change[0] + "=" + change[1]});
    EXPECT_EQ(answer.code, 78) << answer.out;
    EXPECT_THAT(answer.err, AllOf(HasSubstr("no checkpoint of the run could be read after this change"),
                                  HasSubstr("--set " + change[0] + "=" + change[1]), HasSubstr(last + ": " + change[2]),
                                  HasSubstr(change[3]), HasSubstr("another --run-dir")));
    EXPECT_EQ(std::count(answer.err.begin(), answer.err.end(), '\n'), 1) << answer.err;
    EXPECT_EQ(files(), before_it) << change[0];
  }
  const auto possible = smlp({"run", "job.toml", "--ranks", "1", "--set", "optimizer.learning_rate=0.5", "--set",
                              "data.train=[\"valid\"]", "--accept-change", "optimizer.learning_rate", "--accept-change",
                              "data.train", "--set", "train.steps=6", "--set", "train.eval_every=2", "--set", "checkpoint.every_steps=2"});
  EXPECT_EQ(possible.code, 0) << possible.err;
  EXPECT_EQ(possible.err.find("not looked at"), std::string::npos) << possible.err;
  EXPECT_THAT(test::contents(place / "runs/small/job.toml"), HasSubstr("learning_rate = 0.5\n"));
}

// Where the plan of a job names other tensors than its runs save, every accepted change would be refused.
TEST_F(Trained, AChangeThatLeavesTheTensorsAsTheyAreIsPossibleForRunsWithTablesAndOf16Bits) {
  const std::string small = "--ranks 1 --set model.dense_blocks=1 --set model.sparse_blocks=1 --set model.experts=2 --set data.valid=[]";
  const auto goes_on = [&](const std::string& run, const std::string& settings) {
    const auto line = "smlp run job.toml --run-dir " + run + " " + small + " " + settings + " --set train.steps=";
    const auto answer = shell(line + "1 && " + line + "2 --set optimizer.learning_rate=0.5 --accept-change optimizer.learning_rate");
    EXPECT_EQ(answer.code, 0) << answer.err;
    EXPECT_THAT(answer.out, HasSubstr("attempt 2: going on from checkpoint 1\n")) << settings;
    EXPECT_THAT(answer.err, Not(HasSubstr("not looked at"))) << settings;
  };
  goes_on("hashed", "--set model.kind=hash");
  goes_on("biased", "--set model.kind=switch --set routing.expert_bias_rate=0.001 --set train.precision=fp16");
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

}  // namespace
}  // namespace smlp
