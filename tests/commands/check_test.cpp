// `smlp check causality` and `smlp plan --paper`, on the real worker.
#include <gmock/gmock.h>

#include "command_line.h"

namespace smlp {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class Check : public test::CommandLine {};

TEST_F(Check, AJobsModelIsCausal) {
  const auto answer = smlp({"check", "causality", "job.toml"});
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.out, AllOf(StartsWith("small (fresh weights, "), HasSubstr("made random): causal: "),
                                HasSubstr("15 positions")));
  const auto again = smlp({"check", "causality", "job.toml", "--json", "--positions", "4", "--seed", "9"});
  const auto document = json::parse(again.out);
  EXPECT_EQ(document["causal"], true);
  EXPECT_EQ(document["kind"], "smlp");
  EXPECT_EQ(document["positions_tried"], 4);
  EXPECT_EQ(document["positions_watched"], 16);
  EXPECT_TRUE(document["leak"].is_null());
  EXPECT_LT(document["largest_move"], 1e-12);
  EXPECT_GT(document["tensors_randomised"], 0) << "token mixing begins near zero";
}

TEST_F(Check, EveryKindOfModelIsCausal) {
  for (const std::string kind : {"gmlp", "transformer", "gshard", "switch", "base", "hash", "smlp", "gmlp-token-moe"}) {
    const auto answer = smlp({"check", "causality", "job.toml", "--json", "--set", "model.kind=" + kind});
    EXPECT_EQ(answer.code, 0) << kind << answer.err;
    const auto document = json::parse(answer.out);
    EXPECT_EQ(document["causal"], true) << kind;
    EXPECT_EQ(document["first_position"], 0) << kind;
  }
}

TEST_F(Check, PartialPredictionIsJudgedFromItsFirstPredictedPosition) {
  const auto answer = smlp({"check", "causality", "job.toml", "--json", "--set", "routing.channels=partial"});
  EXPECT_EQ(answer.code, 0) << answer.err;
  const auto document = json::parse(answer.out);
  EXPECT_EQ(document["first_position"], 3) << "a fifth of 16";
  EXPECT_EQ(document["positions_watched"], 13);
}

TEST_F(Check, RoutingChannelsByAllTokensLeaks) {
  EXPECT_EQ(smlp({"check", "causality", "job.toml", "--set", "routing.channels=leaky"}).code, 78) << "refused outright";
  const std::vector<std::string> words = {"check", "causality", "job.toml", "--set", "routing.channels=leaky", "--set",
                                          "routing.allow_leak=true"};
  const auto answer = smlp(words);
  EXPECT_EQ(answer.code, 1) << answer.err;
  EXPECT_THAT(answer.out, HasSubstr("): LEAKS: position 0 sees tokens after position "));
  auto as_json = words;
  as_json.push_back("--json");
  const auto document = json::parse(smlp(as_json).out);
  EXPECT_EQ(document["causal"], false);
  EXPECT_EQ(document["leak"]["position"], 0);
  EXPECT_GT(document["leak"]["moved"], 1e-6);
  EXPECT_EQ(document["positions_leaking"], 15) << "all but the last";
}

// Second choices queue behind the first choices of later tokens.
TEST_F(Check, AnEvaluationThatDropsTokensLeaksThroughGshardsSecondChoices) {
  const std::vector<std::string> words = {"check", "causality", "job.toml", "--set", "model.kind=gshard", "--set",
                                          "routing.evaluation_capacity_factor=0.5"};
  const auto answer = smlp(words);
  EXPECT_EQ(answer.code, 1) << answer.out << answer.err;
  EXPECT_THAT(answer.out, HasSubstr("LEAKS"));
}

// It took the job's device, and no GPU computes in float64.
TEST_F(Check, IsDoneOnTheCpuWhateverTheJobTrainsOn) {
  const auto answer = smlp({"check", "causality", "job.toml", "--set", "cluster.device=cuda", "--set", "train.precision=bf16"});
  EXPECT_EQ(answer.code, 0) << answer.out << answer.err;
}

TEST_F(Check, ValuesCanBeSet) {
  const auto document = json::parse(smlp({"check", "causality", "job.toml", "--json", "--set", "model.context=6"}).out);
  EXPECT_EQ(document["context"], 6);
  EXPECT_EQ(document["positions_tried"], 5) << "every one of a short context";
  EXPECT_EQ(smlp({"check", "causality", "job.toml", "--set", "model.contxt=6"}).code, 78);
}

TEST_F(Check, TheWorkersVerdictIsTheExitCode) {
  EXPECT_EQ(smlp({"check", "causality", "job.toml"}, talking_worker(1)).code, 1);
  const auto answer = smlp({"check", "causality", "job.toml", "--positions", "7"}, talking_worker(0));
  EXPECT_THAT(answer.out, AllOf(HasSubstr("causality --positions 7 --seed 1 --job"), HasSubstr("vocabulary = 320")));
}

TEST_F(Check, WhatIsNoModelIsRefused) {
  for (const std::string path : {"nowhere.toml", "."}) EXPECT_EQ(smlp({"check", "causality", path}).code, 78) << path;
  EXPECT_EQ(smlp({"check", "causality"}).code, 64);
  EXPECT_EQ(smlp({"check"}).code, 64);
  EXPECT_THAT(smlp({"check", "casuality", "x"}).err, HasSubstr("did you mean causality?"));
  EXPECT_EQ(smlp({"check", "causality", "job.toml", "--positions", "0"}).code, 64);
}

double number_of(const json& document, int table, const std::string& model, const std::string& what, const char* key) {
  for (const auto& one : document["tables"]) {
    if (one["table"] != table) continue;
    for (const auto& row : one["rows"]) {
      if (row["model"] != model) continue;
      for (const auto& count : row["counts"]) {
        if (count["what"] == what) return count[key].is_number() ? count[key].get<double>() : -1;
      }
    }
  }
  return -2;
}

// The rows that the definitions reproduce, to a tenth of a percent.
TEST_F(Check, PlanPutsOurCountsBesideThePapers) {
  const auto answer = smlp({"plan", "--paper", "--json"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  const auto document = json::parse(answer.out);
  std::vector<int> numbers;
  for (const auto& table : document["tables"]) {
    numbers.push_back(table["table"]);
    EXPECT_FALSE(table["contradictions"].empty()) << table["table"];
  }
  EXPECT_THAT(numbers, testing::ElementsAre(3, 4, 5, 8, 9, 10));
  EXPECT_NEAR(number_of(document, 9, "gMLP", "non_expert", "ours"), 353.874e6, 1e4);
  EXPECT_NEAR(number_of(document, 9, "Transformer", "non_expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 9, "Transformer", "forward_macs", "ours"), 0.829e12, 1e9);
  EXPECT_NEAR(number_of(document, 8, "Base Layers", "non_expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 8, "Base Layers", "expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 10, "Base Layers", "non_expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 10, "Base Layers", "expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 3, "Self-attention, 16 heads", "parameters", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 3, "Self-attention, 1 head", "forward_macs", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 9, "gMLP", "non_expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 8, "sMLP - deterministic", "non_expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 8, "sMLP - deterministic", "expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 10, "sMLP - deterministic, 22 + 8", "non_expert", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 10, "sMLP - deterministic, 22 + 8", "forward_macs", "difference_percent"), 0, 0.2);
  EXPECT_NEAR(number_of(document, 3, "Spatial gating unit, 16 heads", "parameters", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 3, "Spatial gating unit, 1 head", "forward_macs", "difference_percent"), 0, 0.1);
  EXPECT_NEAR(number_of(document, 3, "s-MoE, 1 head", "forward_macs", "ours"), 2.158e9, 1e6) << "the paper prints 4.387 G";
  EXPECT_GT(number_of(document, 5, "sMLP - deterministic, 22 + 8", "parameters", "ours"), 9e9);
}

TEST_F(Check, PlanOfThePaperReadsWell) {
  const auto answer = smlp({"plan", "--paper"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.out, AllOf(HasSubstr("Table 8: small models"), HasSubstr("353.876 M"), HasSubstr("  ! ")));
  EXPECT_EQ(smlp({"plan"}).code, 64);
  EXPECT_EQ(smlp({"plan", "job.toml", "--paper"}).code, 64);
  EXPECT_EQ(smlp({"plan", "--paper", "--placement"}).code, 64);
  EXPECT_EQ(smlp({"plan", "--paper", "--set", "seed=2"}).code, 64);
  EXPECT_EQ(smlp({"plan", "--paper", "--ranks", "2"}).code, 64);
}

}  // namespace
}  // namespace smlp
