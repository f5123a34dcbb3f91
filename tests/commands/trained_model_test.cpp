// `smlp eval`, `generate` and others that compute with the model of a tiny run of the real worker.
#include <gmock/gmock.h>

#include <cmath>

#include "data/byte_alphabet.h"
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

// A file of another program may use the ids that only pad the vocabulary. The loss was computed and then lost, with 65: "there
// is no token 300: the byte tokenizer has 0 to 256".
TEST_F(Trained, EvalHasALossWhereTheTokenizerLacksAToken) {
  write_tokens("padded", 60, 301);
  const auto answer = smlp({"eval", "runs/small", "--data", "padded", "--json"});
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.err, AllOf(HasSubstr("bits a byte of padded are not known: it holds token 2"), HasSubstr("tokenizer bytes")));
  const auto document = json::parse(answer.out);
  EXPECT_GT(document["loss"], 0.0);
  EXPECT_TRUE(document["bits_per_byte"].is_null());
  write("padded.json", R"({"bytes": 100})");
  EXPECT_GT(facts({"eval", "runs/small", "--data", "padded"})["bits_per_byte"], 0.0);
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
  // A loss needs no tokenizer: it was computed and then lost, with 78.
  fs::remove_all(place / "bpe");
  const auto without = smlp({"eval", "bare", "--data", "valid", "--json"});
  ASSERT_EQ(without.code, 0) << without.err;
  EXPECT_THAT(without.err, HasSubstr("bits a byte of valid are not known, nor is \"bytes\" in valid.json: there is no tokenizer"));
  EXPECT_TRUE(json::parse(without.out)["bits_per_byte"].is_null());
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
  ASSERT_EQ(smlp({"data", "prepare", "--input", "text.txt", "--tokenizer", "words", "--output", "train"}).code, 0);
  ASSERT_EQ(smlp({"run", "job.toml", "--run-dir", "worded", "--ranks", "1", "--set", "data.tokenizer=words", "--set",
                  "train.steps=1"}).code, 0);
  EXPECT_EQ(smlp({"generate", "worded", "--prompt", "the", "--tokens", "1"}).code, 0);
  fs::rename(place / "words", place / "elsewhere");
  const auto answer = smlp({"generate", "worded", "--prompt", "the"});
  EXPECT_EQ(answer.code, 78);
  EXPECT_THAT(answer.err, AllOf(HasSubstr("there is no tokenizer words"), HasSubstr("generate there")));

  // Without the folder nothing was compared, and ids of other words were scored.
  write_tokens("other", 90, 257);
  write("other.json", R"({"tokenizer": "bpe", "fingerprint": "of another", "vocabulary": 257, "tokens": 90, "bytes": 200})");
  const auto score = smlp({"eval", "worded", "--data", "other"});
  EXPECT_EQ(score.code, 78) << score.out;
  EXPECT_THAT(score.err, AllOf(HasSubstr("other was prepared with another tokenizer (bpe) than "), HasSubstr("was trained with (words)")));
}

// Each row of the embedding stood for another token, or attention was cut up otherwise, and nothing was said.
TEST_F(Trained, WeightsOfAnotherTokenizerOrModelAreNotTakenSilently) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "the cat and the hat ";
  write("text.txt", text);
  ASSERT_EQ(smlp({"data", "train-tokenizer", "--input", "text.txt", "--vocabulary", "262", "--output", "words"}).code, 0);
  for (const std::string name : {"bytes", "words"}) {
    ASSERT_EQ(shell("smlp data prepare --input text.txt --output of-" + name + " --tokenizer " + name).code, 0);
  }
  const std::string run = "smlp run job.toml --ranks 1 --set train.steps=1 --set data.valid=[] --run-dir ";
  const std::string bytes = " --set 'data.train=[\"of-bytes\"]'", words = " --set data.tokenizer=words --set 'data.train=[\"of-words\"]'";
  ASSERT_EQ(shell(run + "source" + bytes).code, 0);
  const auto begin = run + "worded --init-from source";
  const auto refused = shell(begin + words);
  EXPECT_EQ(refused.code, 78) << refused.out;
  EXPECT_THAT(refused.err, AllOf(HasSubstr("source/checkpoints/step-00000001"), HasSubstr("another tokenizer than data.tokenizer = \"words\""),
                                 HasSubstr("--accept-change data.tokenizer")));
  EXPECT_FALSE(fs::exists(place / "worded"));
  EXPECT_EQ(shell(begin + words + " --accept-change data.tokenizer").code, 0);
  const auto told = shell(run + "other --init-from source --set model.activation=relu" + bytes);
  EXPECT_EQ(told.code, 0) << told.err;
  EXPECT_THAT(told.err, AllOf(HasSubstr("are of a model with model.activation = "), HasSubstr("here \"relu\"")));
  EXPECT_THAT(shell(run + "same --init-from source" + bytes).err, Not(HasSubstr("are of a model")));
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
  const auto answer = shell("smlp bench step >words & pid=$!; "
                            "for i in $(seq 200); do grep -qs . /proc/$pid/task/$pid/children && break; sleep 0.05; done; "
                            "sleep 0.5; kill -INT $pid; wait $pid");
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
  EXPECT_EQ(wider.code, 78) << wider.err << wider.out;
  EXPECT_THAT(wider.err, HasSubstr("embed.weight"));
}

// Once a run that ended before its first checkpoint began with fresh weights when it was started again.
TEST_F(Trained, WeightsToBeginWithAreThoseOfTheFirstStartUntilSomethingIsPublished) {
  const auto run = [&](const std::vector<std::string>& more, const std::string& worker = "") {
    std::vector<std::string> words = {"run", "job.toml", "--run-dir", "next", "--ranks", "1", "--max-restarts", "0"};
    for (const char* still : {"train.steps=1", "optimizer.learning_rate=0", "schedule.initial_rate=0"}) {
      words.insert(words.end(), {"--set", still});
    }
    words.insert(words.end(), more.begin(), more.end());
    return smlp(words, worker);
  };
  EXPECT_EQ(run({"--init-from", "runs/small"}, talking_worker(70)).code, 70);
  fs::rename(place / last, place / "aside");
  const auto gone = run({});
  EXPECT_EQ(gone.code, 78);
  EXPECT_THAT(gone.err, AllOf(HasSubstr(last + " (run.json), which is not there any more"), HasSubstr("with --init-from")));
  fs::rename(place / "aside", place / last);
  const auto again = run({});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("from the start, with the weights of "));
  EXPECT_EQ(facts({"checkpoint", "digest", "next"})["tensors"]["embed.weight"],
            facts({"checkpoint", "digest", last})["tensors"]["embed.weight"]);
  fs::remove_all(place / "runs");
  EXPECT_EQ(run({}).code, 0) << "it has its own now";
}

}  // namespace
}  // namespace smlp
