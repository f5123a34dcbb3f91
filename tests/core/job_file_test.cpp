// From TOML and --set to a JobConfig and back; what is refused before any check of values against each other.
#include "core/job_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/error.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {},
                    ExitCode code = ExitCode::configuration) {
  try {
    parse_job(text, "demo.toml", overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  return "accepted";
}

TEST(JobFile, TenLinesAreEnough) {
  const auto job = parse_job("name = \"demo\"\n[data]\ntokenizer = \"bytes\"\ntrain = [\"a\", \"b\"]\n", "demo.toml");
  EXPECT_EQ(job.config.name, "demo");
  EXPECT_THAT(job.config.data.train, ElementsAre("a", "b"));
  EXPECT_EQ(job.config.model.context, 128);
  EXPECT_EQ(origin_of(job, "data.train"), "demo.toml:4");
  EXPECT_EQ(origin_of(job, "model.context"), "default");
}

TEST(JobFile, WhatIsWrittenReadsBackTheSame) {
  auto job = parse_job(
      "name = \"a \\\"quoted\\\" näme\"\nseed = 7\n[optimizer]\nlearning_rate = 3e-4\neps = 1.5e-08\nclip_norm = 2\n"
      "betas = [0.9, 0.99]\n[checkpoint]\nauto = true\n[data]\nweights = [1, 2.5]\n[slurm]\nsetup = [\"x\\ty\"]",
      "demo.toml");
  const auto text = to_toml(job.config);
  const auto again = parse_job(text, "again.toml");
  EXPECT_EQ(to_toml(again.config), text);
  for (const auto& key : job_keys()) EXPECT_EQ(value_of(again.config, key.key), value_of(job.config, key.key));
  EXPECT_EQ(again.config.optimizer.eps, 1.5e-8);
  EXPECT_EQ(again.config.optimizer.clip_norm, 2.0) << "an integer serves as a number";
  EXPECT_TRUE(again.config.checkpoint.automatic);
  EXPECT_EQ(again.config.slurm.setup.at(0), "x\ty");
}

TEST(JobFile, EveryKeyHasAMeaningAndItsDefault) {
  for (const auto& key : job_keys()) {
    EXPECT_FALSE(key.meaning.empty()) << key.key;
    const auto defaults = parse_job("", "x");
    EXPECT_EQ(value_of(defaults.config, key.key), key.fallback) << key.key;
  }
}

TEST(JobFile, UnknownKeysGetTheNearestName) {
  EXPECT_THAT(refusal("name = \"x\"\n[model]\ncontxt = 5\n"),
              AllOf(HasSubstr("demo.toml:3"), HasSubstr("model.contxt"), HasSubstr("did you mean model.context?")));
  EXPECT_THAT(refusal("[modle]\ncontext = 5\n"), AllOf(HasSubstr("demo.toml:1"), HasSubstr("did you mean [model]?")));
  EXPECT_THAT(refusal("[train]\ncontext = 5\n"), HasSubstr("did you mean model.context?"));
  EXPECT_THAT(refusal("steps = 5\n"), HasSubstr("did you mean train.steps?"));
  EXPECT_THAT(refusal("naem = \"x\"\n"), HasSubstr("did you mean name?"));
  EXPECT_THAT(refusal("[train]\nqqqqqqqqqqqqqqqqqq = 5\n"), HasSubstr("smlp config keys"));
  EXPECT_THAT(refusal("model = 3\n"), HasSubstr("[model] is a section"));
  EXPECT_THAT(refusal("\"model.context\" = 3\n[model]\ncontext = 40\n"),
              AllOf(HasSubstr("demo.toml:1"), HasSubstr("there is no key \"model.context\"; leave the quotes out")));
  EXPECT_THAT(refusal("[model.width]\nx = 1\n"), HasSubstr("model.width is a section, but"));
}

// An array of nan stood over three lines, 0.9 as 0.90000000000000002, and [1] was "an array, but an array is needed".
TEST(JobFile, WrongArraysAreToldOnOneLineAsTheyWereWritten) {
  EXPECT_EQ(refusal("[data]\nweights = [nan, 0.9]\n"),
            "demo.toml:2: data.weights = [nan, 0.9] is out of range: each must be finite, at least 0");
  EXPECT_THAT(refusal("[data]\ntrain = [\"one\", 2]\n"),
              HasSubstr("data.train = ['one', 2] holds an integer, but an array of strings is needed"));
  EXPECT_THAT(refusal("[optimizer]\nbetas = [0.9, [\"x\"]]\n"), HasSubstr("betas = [0.9, ['x']] holds an array, but"));
  EXPECT_THAT(refusal("[model]\nwidth = [ 32 ]\n"), HasSubstr("model.width = [32] is an array, but"));
  EXPECT_THAT(refusal("[model]\nwidth = {a = 1}\n"), HasSubstr("model.width is a section, but a whole number"));
}

TEST(JobFile, WrongTypesAreNamedWithTheValueAndWhatIsNeeded) {
  EXPECT_THAT(refusal("[model]\ncontext = \"big\"\n"),
              AllOf(HasSubstr("demo.toml:2"), HasSubstr("model.context"), HasSubstr("big"), HasSubstr("is a string"),
                    HasSubstr("whole number")));
  EXPECT_THAT(refusal("[model]\ncontext = 128.0\n"), HasSubstr("whole number"));
  EXPECT_THAT(refusal("[model]\nkind = 3\n"), HasSubstr("a string in quotes is needed"));
  EXPECT_THAT(refusal("[routing]\nallow_leak = 1\n"), HasSubstr("true or false"));
  EXPECT_THAT(refusal("[data]\ntrain = \"one\"\n"), HasSubstr("array of strings"));
  EXPECT_THAT(refusal("[data]\ntrain = [\"one\", 2]\n"), HasSubstr("array of strings"));
  EXPECT_THAT(refusal("[optimizer]\nbetas = [0.9, \"x\"]\n"), HasSubstr("array of numbers"));
  EXPECT_THAT(refusal("[slurm]\ntime_limit = 23:00:00\n"), HasSubstr("a date or time"));
}

TEST(JobFile, ValuesOutOfRangeAreRefused) {
  for (const char* line : {"[model]\ncontext = 1", "[model]\nwidth = 0", "[model]\nwidth = -4", "[model]\ndropout = 1.0",
                           "[model]\ndropout = -0.1", "seed = -1", "[train]\nsteps = 0", "[train]\nmicro_batch = 0",
                           "[train]\neval_every = -1", "[optimizer]\nlearning_rate = -1e-3", "[optimizer]\neps = 0",
                           "[optimizer]\nlearning_rate = nan", "[optimizer]\nlearning_rate = inf",
                           "[optimizer]\nbetas = [0.9, 1.0]", "[checkpoint]\nkeep_last = 0", "[cluster]\nranks = 0",
                           "[cluster]\nthreads = -2", "[cluster]\nhang_floor_seconds = 0", "[model]\nheads = 0",
                           "[schedule]\nwarmup_steps = -5", "[model]\nwidth = 9000000000000"}) {
    EXPECT_THAT(refusal(line), AllOf(HasSubstr("demo.toml:"), HasSubstr("out of range"), HasSubstr("must be"))) << line;
  }
}

TEST(JobFile, UnknownWordsGetTheNearestOneAndTheChoices) {
  EXPECT_THAT(refusal("[model]\nkind = \"smpl\"\n"),
              AllOf(HasSubstr("did you mean \"smlp\"?"), HasSubstr("choose smlp, gmlp, transformer, ")));
  EXPECT_THAT(refusal("[train]\nprecision = \"f16\"\n"), HasSubstr("choose f32, bf16, fp16 or f64"));
}

TEST(JobFile, AllThatIsWrongIsListedAtOnce) {
  const auto sentences = refusal("[model]\ncontxt = 5\nwidth = \"x\"\n[train]\nsteps = -1\n", {"seed=abc"});
  EXPECT_THAT(sentences, AllOf(HasSubstr("demo.toml:2:"), HasSubstr("demo.toml:3:"), HasSubstr("demo.toml:5:"),
                               HasSubstr("--set seed=abc:")));
}

TEST(JobFile, WhatIsNoTomlIsNamedWithItsLine) {
  EXPECT_THAT(refusal("name = \"x\"\n[model\n"), AllOf(HasSubstr("demo.toml:2:"), HasSubstr("not TOML")));
  EXPECT_THAT(refusal("seed = 1\nseed = 2\n"), HasSubstr("demo.toml:2:"));
  EXPECT_THAT(refusal("seed = 99999999999999999999\n"), HasSubstr("demo.toml:1:"));
}

// Names of 50,000 parts ended the program: the parser goes down one part at a time.
TEST(JobFile, NamesOfVeryManyPartsAreRefusedWithTheirLine) {
  std::string name = "a";
  for (int i = 0; i < 50000; ++i) name += ".a";
  const std::string why = "a name of more than 16 parts, where a key has two: section.key";
  EXPECT_EQ(refusal("name = \"x\"\n" + name + " = 1\n"), "demo.toml:2: " + why);
  EXPECT_EQ(refusal("[" + name + "]\n"), "demo.toml:1: " + why);
  EXPECT_EQ(refusal("# it's\n[[" + name + "]]\n"), "demo.toml:2: " + why);
  EXPECT_EQ(refusal("a = '''\n'''''\nb = [{\"c\".'d'." + name + " = 1}]\n"), "demo.toml:3: " + why);
  EXPECT_THAT(refusal("", {"model.width={" + name + " = 1}"}), AllOf(HasSubstr("--set model.width={a.a"), HasSubstr(why)));
  EXPECT_EQ(refusal("", {"data.tokenizer=" + name}), "accepted") << "a path, which nothing parses";
  EXPECT_EQ(refusal("name = \"x\" # " + name + "\n[data]\ntrain = [\"" + name + "\", '" + name + "', '''" + name + "''']\n"),
            "accepted");
  std::string weights = "1.0";
  for (int i = 0; i < 50; ++i) weights += ", 1.0";
  EXPECT_EQ(refusal("[data]\nweights = [" + weights + "]\n"), "accepted");
}

// Each line of it was shown as a sentence of its own.
TEST(JobFile, ALineBreakInANameOrAValueBreaksNoSentence) {
  for (const std::string text : {"[model]\nkind = \"sm\\nlp\"\n", "[model]\nkind = '''sm\nlp'''\n",
                                 "[model]\nwidth = \"a\\nb\"\n", "[model]\n\"he\\nads\" = 1\n",
                                 "[\"mo\\ndel\"]\nwidth = 1\n", "\"a.\\nb\" = 1\n"}) {
    EXPECT_EQ(refusal(text).find('\n'), std::string::npos) << refusal(text);
  }
  EXPECT_EQ(refusal("", {"model.kind=sm\nlp"}).find('\n'), std::string::npos);
  EXPECT_EQ(refusal("", {"model.width=3\n4"}).find('\n'), std::string::npos);
  EXPECT_EQ(refusal("", {"wi\ndth"}, ExitCode::usage).find('\n'), std::string::npos);
  EXPECT_THAT(refusal("[model]\nkind = \"sm\\nlp\"\n"), HasSubstr(R"(model.kind = "sm\u000Alp" is not known)"));
}

TEST(JobFile, OverridesTakeTomlAndABareWordIsAString) {
  const auto job = parse_job("name = \"x\"\n[train]\nsteps = 5\n", "demo.toml",
                             {"train.steps=7", "data.tokenizer=data/bpe", "name=\"quo ted\"", "optimizer.betas=[0.8, 0.9]",
                              "slurm.time_limit=24:00:00", "data.train=[\"a\"]", "seed=3", "train.steps=8"});
  EXPECT_EQ(job.config.train.steps, 8) << "the last one counts";
  EXPECT_EQ(job.config.data.tokenizer, "data/bpe");
  EXPECT_EQ(job.config.name, "quo ted");
  EXPECT_THAT(job.config.optimizer.betas, ElementsAre(0.8, 0.9));
  EXPECT_EQ(job.config.slurm.time_limit, "24:00:00");
  EXPECT_EQ(job.config.seed, 3);
  EXPECT_EQ(origin_of(job, "train.steps"), "--set train.steps=8");
  EXPECT_EQ(parse_job("", "x", {"name=12"}).config.name, "12");
}

// "there is no key train.steps ; did you mean train.steps?"
TEST(JobFile, BlanksAroundTheKeyAndTheValueOfAnOverrideAreTakenOff) {
  const auto job = parse_job("", "x", {"train.steps = 12", " model.kind =\tgmlp ", "data.tokenizer = \" a b \""}).config;
  EXPECT_EQ(job.train.steps, 12);
  EXPECT_EQ(job.model.kind, "gmlp");
  EXPECT_EQ(job.data.tokenizer, " a b ") << "within quotes they stay";
}

TEST(JobFile, BadOverridesAreRefused) {
  EXPECT_THAT(refusal("", {"train.steps"}, ExitCode::usage), HasSubstr("section.key=value"));
  EXPECT_THAT(refusal("", {"train.stps=3"}), HasSubstr("did you mean train.steps?"));
  EXPECT_THAT(refusal("", {"train.steps=many"}), HasSubstr("whole number"));
  EXPECT_THAT(refusal("", {"model.context=3\nseed=4"}), HasSubstr("whole number")) << "one value, not a document";
  EXPECT_THAT(refusal("", {"=3"}, ExitCode::usage), HasSubstr("section.key=value"));
  // "there is no section []"
  for (const char* half : {".steps=3", "train.=3", " .steps = 3", ".=3", " = 3"}) {
    EXPECT_THAT(refusal("", {half}, ExitCode::usage), HasSubstr("section.key=value, not '")) << half;
  }
  EXPECT_THAT(refusal("", {"name=\xff\xfe"}), HasSubstr("--set"));
}

TEST(JobFile, FingerprintAndComparisonIgnoreWhatMayChange) {
  const auto base = parse_job("name = \"x\"", "a").config;
  const auto with = [](const char* override) { return parse_job("name = \"x\"", "a", {override}).config; };
  for (const char* free : {"train.steps=9", "train.micro_batch=2", "checkpoint.every_steps=1", "metrics.listen=0.0.0.0:1",
                           "cluster.ranks=7", "cluster.expert_ranks=1", "slurm.nodes=3"}) {
    EXPECT_TRUE(changed_keys(base, with(free)).empty()) << free;
    EXPECT_EQ(fingerprint(base), fingerprint(with(free))) << free;
  }
  for (const char* bound : {"seed=9", "model.width=2", "train.global_batch=2", "optimizer.eps=1e-9", "data.train=[\"q\"]",
                            "routing.group_sequences=2", "schedule.decay_steps=5", "train.precision=bf16"}) {
    const std::string key(bound, std::string(bound).find('='));
    EXPECT_THAT(changed_keys(base, with(bound)), ElementsAre(key));
    EXPECT_NE(fingerprint(base), fingerprint(with(bound))) << bound;
  }
}

// Read until the memory was full: a device that never ends.
TEST(JobFile, AMissingFileAFolderOrAnEndlessDeviceIsNamed) {
  for (const char* path : {"/nowhere/job.toml", "/", "/dev/zero"}) {
    try {
      load_job(path);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::configuration);
      EXPECT_THAT(error.what(), HasSubstr(path));
    }
  }
}

TEST(JobFile, APipeIsAFile) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const std::string text = "name = \"piped\"\n";
  ASSERT_EQ(::write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  ::close(ends[1]);
  EXPECT_EQ(load_job("/dev/fd/" + std::to_string(ends[0])).config.name, "piped");
  ::close(ends[0]);
}

}  // namespace
}  // namespace smlp
