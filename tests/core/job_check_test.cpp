// Values that must fit each other: each impossible job is refused with key, line, value, reason and remedy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/job_file.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* sound = "name = \"demo\"\n[data]\ntokenizer = \"bytes\"\ntrain = [\"a\"]\nvalid = [\"b\"]\n";

JobConfig accepted(const std::vector<std::string>& overrides) {
  auto job = parse_job(sound, "demo.toml", overrides);
  check_and_resolve(job);
  return job.config;
}

struct Refused {
  std::vector<std::string> overrides;
  std::vector<std::string> words;
  ExitCode code = ExitCode::configuration;
};

TEST(JobCheck, ASoundJobIsResolved) {
  auto job = parse_job(sound, "demo.toml");
  check_and_resolve(job);
  EXPECT_EQ(job.config.routing.group_sequences, 4);
  EXPECT_EQ(job.config.schedule.decay_steps, 0);  // only a cosine has an end
  EXPECT_EQ(accepted({"schedule.kind=cosine"}).schedule.decay_steps, 400);
  EXPECT_EQ(job.config.cluster.expert_ranks, 2);
  EXPECT_EQ(origin_of(job, "cluster.expert_ranks"), "gcd(model.experts, cluster.ranks)");
  auto again = parse_job(to_toml(job.config), "job.toml");
  check_and_resolve(again);
  EXPECT_EQ(to_toml(again.config), to_toml(job.config)) << "a resolved file resolves to itself";
}

TEST(JobCheck, ImpossibleJobsAreRefusedWithReasonAndRemedy) {
  const std::vector<Refused> table = {
      {{"model.experts=5"}, {"--set model.experts=5", "model.experts = 5", "model.width = 128", "4 or 8"}},
      {{"model.hidden=511"}, {"model.hidden = 511", "odd", "510 or 512"}},
      {{"model.heads=3"}, {"model.heads = 3", "256", "2 or 4"}},
      {{"train.global_batch=18"}, {"train.global_batch = 18", "2 ranks x micro-batches of 4", "16 or 24", "micro_batch = 3"}},
      {{"train.global_batch=3"}, {"choose 8"}},
      {{"cluster.ranks=3"}, {"demo.toml (by default): train.global_batch = 16", "12 or 24"}},
      {{"routing.group_sequences=3"}, {"routing.group_sequences = 3", "train.micro_batch = 4", "2 or 4"}},
      {{"model.expert_layers=1073741824"}, {"model.expert_layers = 1073741824", "choose 32768 at most"}},  // planned for ever
      {{"cluster.expert_ranks=3"}, {"cluster.ranks = 2", "choose 2"}},
      {{"cluster.expert_ranks=2", "model.experts=1"}, {"model.experts = 1", "choose 1"}},
      {{"train.precision=bf16", "train.tf32=true"}, {"train.tf32 = true", "none in bf16"}},
      {{"train.loss_scale=1024"}, {"train.loss_scale = 1024", "fp16"}},
      {{"train.precision=bf16", "train.loss_scale_window=10"}, {"train.loss_scale_window = 10", "fp16"}},
      {{"model.kind=transformer", "model.heads=3"}, {"model.heads = 3", "model.width = 128", "2 or 4"}},
      {{"model.kind=base", "model.width=127"}, {"model.width = 127", "odd", "126 or 128"}},
      {{"model.kind=transformer", "model.sparse_blocks=2"}, {"model.sparse_blocks = 2", "transformer"}},
      {{"model.kind=switch", "model.sparse_blocks=2"}, {"model.sparse_blocks = 2", "every other block", "3 or 4"}},
      {{"model.kind=hash", "routing.tokens=balanced"}, {"routing.tokens = \"balanced\"", "\"hash\""}},
      {{"model.kind=base", "routing.channels=partial"}, {"routing.channels = \"partial\"", "routes none"}},
      {{"model.kind=gmlp-token-moe", "model.hidden=511"}, {"odd"}},
      {{"routing.tokens=switch", "routing.expert_bias_rate=1e-3", "routing.first_expert=sampling"},
       {"routing.first_expert = \"sampling\"", "routing.expert_bias_rate", "best"}},
      {{"routing.tokens=gshard", "routing.expert_bias_rate=1e-3"}, {"routing.second_expert = \"sampling\"", "\"all\""}},
      {{"routing.tokens=gshard", "routing.first_expert=sinkhorn"}, {"routing.second_expert = \"sampling\"", "sinkhorn"}},
      {{"routing.expert_bias_rate=-0.1"}, {"routing.expert_bias_rate"}},
      {{"routing.tokens=hash", "routing.shuffle=true"}, {"routing.shuffle = true", "routing.tokens = \"hash\" has none"}},
      {{"model.kind=gmlp-token-moe", "routing.shuffle=true"}, {"routing.shuffle = true", "whole gMLP blocks"}},
      {{"routing.shuffle=true", "model.context=33", "train.micro_batch=1"}, {"routing.shuffle = true", "33 tokens", "2 ranks", "cluster.expert_ranks = 1"}},
      {{"model.kind=switch", "model.sparse_blocks=4", "model.expert_layers=2"}, {"model.expert_layers = 2", "switch"}},
      {{"model.expert_layers=0"}, {"model.expert_layers"}},
      {{"routing.channels=partial", "model.context=4"}, {"model.context = 4", "fifth"}},
      {{"routing.channels=leaky"}, {"routing.allow_leak = true"}},
      {{"cluster.device=cuda"}, {"cluster.device = \"cuda\"", "choose cpu"}, ExitCode::unavailable},
      {{"cluster.device=cuda", "model.experts=5"}, {"model.experts = 5"}},
      {{"cluster.device=cuda", "train.precision=f64"}, {"train.precision = \"f64\"", "GPUs do not compute"}},
      {{"cluster.communicator=nccl"}, {"cluster.communicator = \"nccl\"", "choose auto or staged"}, ExitCode::unavailable},
      {{"cluster.communicator=nccl", "model.experts=5"}, {"model.experts = 5"}},
      {{"cluster.communicator=staged", "cluster.device=cpu"}, {"cluster.communicator = \"staged\"", "for ranks on GPUs"}},
      {{"optimizer.betas=[0.9]"}, {"has 1 entries", "two"}},
      {{"schedule.kind=cosine", "schedule.warmup_steps=400"}, {"schedule.warmup_steps = 400", "step 400"}},
      {{"schedule.kind=cosine", "schedule.minimum_rate=0.1"}, {"schedule.minimum_rate = 0.1", "rise"}},
      {{"schedule.minimum_rate=0.0001"}, {"schedule.minimum_rate = 0.0001", "kind = \"inverse_sqrt\"", "choose cosine"}},
      {{"schedule.kind=constant", "schedule.decay_steps=9"}, {"schedule.decay_steps = 9", "kind = \"constant\""}},
      {{"schedule.initial_rate=0.1"}, {"schedule.initial_rate = 0.1", "0.001"}},
      {{"model.dense_blocks=0"}, {"model.dense_blocks = 0", "fairseq"}},
      {{"model.dense_blocks=0", "model.sparse_blocks=0"}, {"empty model"}},
      {{"model.kind=gmlp", "model.sparse_blocks=2"}, {"model.sparse_blocks = 2", "gmlp"}},
      {{"model.vocabulary=1"}, {"nothing to predict"}},
      {{"metrics.listen=9100"}, {"metrics.listen = \"9100\"", "127.0.0.1:0"}},
      {{"metrics.listen=localhost:70000"}, {"no IPv4 address"}},
      {{"metrics.listen=local host:1"}, {"no IPv4 address"}},
      {{"metrics.listen=[::1]:0"}, {"no IPv4 address"}},  // was sound here, and no rank could serve it
      {{"metrics.listen="}, {"no IPv4 address"}},
      {{"name="}, {"no name"}},
      {{"name=a/b"}, {"name = \"a/b\"", "folder"}},
      {{"name=\"a\\nb\""}, {"control characters"}},
      {{"name=.."}, {"can't name a folder"}},
      {{"data.weights=[1, 2]"}, {"2 entries for 1 files"}},
      {{"data.weights=[0]"}, {"sums to nothing"}},
      {{"checkpoint.keep_best=true", "data.valid=[]"}, {"data.valid"}},
      {{"checkpoint.keep_best=true", "train.eval_every=0"}, {"train.eval_every"}},
      {{"checkpoint.local_dir=/tmp/x"}, {"checkpoint.local_every_steps = 0", "checkpoint.auto = true"}},
      {{"checkpoint.local_every_steps=5"}, {"needs checkpoint.local_dir"}},
      {{"checkpoint.local_dir=x", "checkpoint.local_every_steps=5"}, {"checkpoint.local_dir = \"x\"", "no absolute path"}},
      {{"checkpoint.auto_least_seconds=20", "checkpoint.auto_most_seconds=10"}, {"checkpoint.auto_most_seconds = 10"}},
  };
  for (const auto& row : table) {
    std::string what = "accepted";
    ExitCode code = ExitCode::done;
    try {
      accepted(row.overrides);
    } catch (const Error& error) {
      what = error.what();
      code = error.code();
    }
    for (const auto& word : row.words) EXPECT_THAT(what, HasSubstr(word)) << row.overrides.front();
    EXPECT_EQ(code, row.code) << row.overrides.front();
  }
}

TEST(JobCheck, AllThatIsWrongIsListedAtOnce) {
  try {
    accepted({"model.experts=5", "model.hidden=511", "train.global_batch=18", "name=a/b"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("model.experts"), HasSubstr("model.hidden"),
                                    HasSubstr("train.global_batch"), HasSubstr("name")));
  }
}

TEST(JobCheck, AJobForGpusIsCountedByABuildWithoutThem) {
  auto job = parse_job(sound, "demo.toml", {"cluster.device=cuda", "cluster.communicator=nccl"});
  EXPECT_NO_THROW(check_and_resolve(job, Computed::elsewhere));
  auto exact = parse_job(sound, "demo.toml", {"cluster.device=cuda", "train.precision=f64"});
  EXPECT_THROW(check_and_resolve(exact, Computed::elsewhere), Error) << "no GPU computes it";
}

TEST(JobCheck, SuggestedValuesAreAccepted) {
  EXPECT_NO_THROW(accepted({"train.global_batch=18", "train.micro_batch=3"}));
  EXPECT_NO_THROW(accepted({"model.dense_blocks=0", "model.placement=fairseq"}));
  EXPECT_NO_THROW(accepted({"model.heads=4"}));
  EXPECT_NO_THROW(accepted({"metrics.listen=localhost:9100"}));
}

TEST(JobCheck, GmlpNeedsNoWordAboutSparseBlocks) {
  const auto config = accepted({"model.kind=gmlp"});
  EXPECT_EQ(config.model.sparse_blocks, 0);
  EXPECT_EQ(config.cluster.expert_ranks, 1);
}

TEST(JobCheck, KindsBringWhatTheyHaveNoChoiceIn) {
  EXPECT_EQ(accepted({"model.kind=transformer"}).model.sparse_blocks, 0);
  const auto gshard = accepted({"model.kind=gshard"});
  EXPECT_EQ(gshard.model.sparse_blocks, gshard.model.dense_blocks);
  EXPECT_EQ(gshard.routing.tokens, "gshard");
  EXPECT_EQ(accepted({"model.kind=switch", "model.sparse_blocks=3"}).model.sparse_blocks, 3);
  EXPECT_EQ(accepted({"model.kind=base"}).routing.tokens, "balanced");
  EXPECT_EQ(accepted({"model.kind=hash"}).model.sparse_blocks, 2);
  EXPECT_EQ(accepted({"model.kind=hash"}).routing.tokens, "hash");
  EXPECT_NO_THROW(accepted({"model.kind=transformer", "model.hidden=511", "model.experts=7"}));
  EXPECT_NO_THROW(accepted({"model.kind=base", "model.experts=6"}));
  EXPECT_NO_THROW(accepted({"model.kind=gmlp-token-moe", "model.experts=6"}));
  EXPECT_NO_THROW(accepted({"routing.channels=partial"}));
  EXPECT_NO_THROW(accepted({"routing.channels=leaky", "routing.allow_leak=true"}));
  auto again = parse_job(to_toml(gshard), "job.toml");
  check_and_resolve(again);
  EXPECT_EQ(to_toml(again.config), to_toml(gshard));
}

// A run of a Transformer could not go on with a smaller micro-batch, nor on more ranks.
TEST(JobCheck, GroupsOfAModelThatRoutesNothingBindNoMicroBatch) {
  auto run = accepted({"model.kind=transformer"});
  EXPECT_EQ(run.routing.group_sequences, 1);
  const auto smaller = [&] {
    auto now = parse_job(sound, "demo.toml", {"model.kind=transformer", "train.micro_batch=2"});
    keep_resolved(now, run);
    check_and_resolve(now);
    return now.config;
  };
  EXPECT_THAT(changed_keys(run, smaller()), testing::IsEmpty());
  EXPECT_EQ(fingerprint(run), fingerprint(smaller()));
  run.routing.group_sequences = 4;  // as runs had it once
  EXPECT_THAT(changed_keys(run, smaller()), testing::IsEmpty());
  EXPECT_NO_THROW(accepted({"model.kind=transformer", "routing.group_sequences=3"}));
}

TEST(JobCheck, ExpertsThatAModelLacksBindNoRanks) {
  EXPECT_NO_THROW(accepted({"model.kind=gmlp", "cluster.ranks=4", "cluster.expert_ranks=4", "model.experts=3"}));
  // Another start of the same job, by its fingerprint: what the nodes had saved of it was removed.
  EXPECT_EQ(fingerprint(accepted({"model.kind=gmlp", "routing.group_sequences=4"})), fingerprint(accepted({"model.kind=gmlp"})));
}

TEST(JobCheck, WhatWasDerivedStaysTheRunsOwn) {
  const auto run = accepted({"schedule.kind=cosine", "train.steps=200"});
  auto now = parse_job(sound, "demo.toml", {"schedule.kind=cosine", "train.steps=800", "train.micro_batch=8"});
  keep_resolved(now, run);
  check_and_resolve(now);
  EXPECT_EQ(now.config.schedule.decay_steps, 200);
  EXPECT_EQ(now.config.routing.group_sequences, 4);
  EXPECT_TRUE(changed_keys(run, now.config).empty());

  auto constant = parse_job(sound, "demo.toml", {"schedule.kind=constant"});
  keep_resolved(constant, run);
  EXPECT_NO_THROW(check_and_resolve(constant)) << "a cosine's end is kept for a cosine";

  auto smaller = parse_job(sound, "demo.toml", {"train.micro_batch=2"});
  keep_resolved(smaller, run);
  try {
    check_and_resolve(smaller);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("kept from the run"), HasSubstr("a multiple of 4")));
  }
}

TEST(JobCheck, SavesOnNodesMayChooseTheirInterval) {
  EXPECT_NO_THROW(accepted({"checkpoint.local_dir=/tmp/x", "checkpoint.auto=true"}));
}

TEST(JobCheck, LaterKeysAreAccepted) {
  EXPECT_NO_THROW(accepted({"checkpoint.auto=true", "checkpoint.every_seconds=30", "checkpoint.local_dir=/tmp/x",
                            "checkpoint.local_every_steps=5", "cluster.spare_nodes=2"}));
}

}  // namespace
}  // namespace smlp
