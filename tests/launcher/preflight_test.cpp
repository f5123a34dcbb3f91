// Nodes judged by what they answer: tables of answers and of what is said of them.
#include "launcher/preflight.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/version.h"

namespace smlp {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

json sound() {
  const json folder = {{"path", "/runs/demo"}, {"free_bytes", 50'000'000'000}, {"sync_seconds", 0.01},
                       {"writable", true}, {"failure", ""}};
  return {{"cores", 8}, {"threads", 16}, {"devices", 0},
          {"isa", "avx512"}, {"version", version()}, {"product_flops", 100e9}, {"best_product_flops", 110e9},
          {"run_dir", folder}, {"local_dir", nullptr}, {"clock_seconds", 1000.0}};
}

using Change = std::function<void(json&)>;

Change set(const std::string& pointer, json value) {
  return [=](json& report) { report[json::json_pointer(pointer)] = value; };
}

class Preflight : public testing::Test {
 protected:
  void node(const std::vector<Change>& changes = {}) {
    auto report = sound();
    for (const auto& change : changes) change(report);
    answers.push_back({.node = fmt::format("n{}", answers.size() + 1), .line = report.dump(), .failure = "", .received = 1000.2});
  }
  void nodes(int count) {
    for (int i = 0; i < count; ++i) node();
  }
  // "n2", "n3 unfit" ...: only nodes of which something is said, in order.
  std::vector<std::string> outcome() {
    said.clear();
    std::vector<std::string> words;
    for (const auto& verdict : judge(answers, job, demands)) {
      for (const auto& sentence : verdict.sentences) {
        EXPECT_THAT(sentence, HasSubstr("node " + verdict.node));
        said += sentence + "\n";
      }
      EXPECT_TRUE(verdict.fit || !verdict.sentences.empty()) << "unfit without a word";
      if (!verdict.fit || verdict.slow || !verdict.sentences.empty()) {
        words.push_back(verdict.node + (verdict.fit ? "" : " unfit") + (verdict.slow ? " slow" : ""));
      }
    }
    return words;
  }

  std::vector<ProbeAnswer> answers;
  JobConfig job;
  NodeDemands demands{.ranks_per_node = 2, .free_bytes = 10'000'000'000};
  std::string said;
};

TEST_F(Preflight, ReportsAreReadWhole) {
  auto line = sound();
  line["local_dir"] = line["run_dir"];
  line["local_dir"]["failure"] = "is full";
  line["more"] = "of a later version";
  const auto [report, failure] = parse_node_report(line.dump());
  ASSERT_TRUE(report) << failure;
  EXPECT_EQ(report->cores, 8);
  EXPECT_EQ(report->product_flops, 100e9);
  EXPECT_EQ(report->run_dir.free_bytes, 50'000'000'000);
  EXPECT_TRUE(report->run_dir.writable);
  ASSERT_TRUE(report->local_dir);
  EXPECT_EQ(report->local_dir->failure, "is full");
  EXPECT_EQ(report->clock_seconds, 1000);
}

TEST_F(Preflight, GarbageIsASentence) {
  for (const std::string garbage : {"", "srun: error", "[]", "3", "{", "{\"host\": \"n\"", "\x01\x02\xff", "nan"}) {
    const auto parsed = parse_node_report(garbage);
    EXPECT_FALSE(parsed.report) << garbage;
    EXPECT_THAT(parsed.failure, HasSubstr("its answer is no report")) << garbage;
    EXPECT_THAT(parsed.failure, Not(HasSubstr("\x01")));
  }
  const auto whole = sound();
  for (const auto& [key, value] : whole.items()) {
    if (key == "local_dir") continue;
    for (const json& wrong : {json(), json(-1), json("\n"), json::array()}) {
      if (wrong.is_string() && value.is_string()) continue;
      auto line = whole;
      line[key] = wrong;
      EXPECT_FALSE(parse_node_report(line.dump()).report) << key << " = " << wrong;
    }
    auto line = whole;
    line.erase(key);
    EXPECT_THAT(parse_node_report(line.dump()).failure, HasSubstr("'" + key)) << "without " << key;
  }
  auto line = whole;
  line["run_dir"].erase("writable");
  EXPECT_THAT(parse_node_report(line.dump()).failure, HasSubstr("run_dir.writable"));
  line = whole;
  line["local_dir"] = 7;
  EXPECT_THAT(parse_node_report(line.dump()).failure, HasSubstr("local_dir"));
}

TEST_F(Preflight, SoundNodesAreFitWithoutAWord) {
  nodes(4);
  EXPECT_THAT(outcome(), IsEmpty()) << said;
  EXPECT_EQ(judge(answers, job, demands).size(), 4u);
  EXPECT_THAT(judge({}, job, demands), IsEmpty());
}

TEST_F(Preflight, ASlowNodeIsNamedAndExcludedByPolicy) {
  nodes(2);
  node({set("/product_flops", 49e9), set("/best_product_flops", 49.5e9)});
  node({set("/product_flops", 51e9)});
  node({set("/product_flops", 100e9)});
  EXPECT_THAT(outcome(), ElementsAre("n3 slow"));
  EXPECT_THAT(said, AllOf(HasSubstr("49 GFLOP/s"), HasSubstr("median of 5 nodes is 100 GFLOP/s"),
                          HasSubstr("cluster.slow_node_share = 0.5"), Not(HasSubstr("something else"))));
  job.cluster.slow_nodes = "exclude";
  EXPECT_THAT(outcome(), ElementsAre("n3 unfit slow"));
  EXPECT_THAT(said, HasSubstr("node n3 is left out: it is slow"));
  job.cluster.slow_node_share = 0;
  EXPECT_THAT(outcome(), IsEmpty());
  job.cluster.slow_node_share = 0.9;
  EXPECT_THAT(outcome(), ElementsAre("n3 unfit slow", "n4 unfit slow"));
}

TEST_F(Preflight, ABusyNodeIsToldFromASlowOne) {
  nodes(3);
  node({set("/product_flops", 30e9), set("/best_product_flops", 100e9)});
  EXPECT_THAT(outcome(), ElementsAre("n4 slow"));
  EXPECT_THAT(said, HasSubstr("something else seems to compute there"));
}

TEST_F(Preflight, OfTwoNodesTheSlowerIsWarnedOfAndOneIsComparedWithNothing) {
  job.cluster.slow_nodes = "exclude";
  node({set("/product_flops", 30e9)});
  EXPECT_THAT(outcome(), IsEmpty());
  node();
  EXPECT_THAT(outcome(), ElementsAre("n1 slow"));
  EXPECT_THAT(said, HasSubstr("the other node 100 GFLOP/s"));
}

TEST_F(Preflight, VersionsMustBeTheLaunchers) {
  nodes(2);
  node({set("/version", "0.0.9")});
  node({set("/version", "9.9"), [](json& report) { report.erase("run_dir"); }});
  EXPECT_THAT(outcome(), ElementsAre("n3 unfit", "n4 unfit"));
  EXPECT_THAT(said, AllOf(HasSubstr("n3 is left out: it has smlp 0.0.9, and here is " + std::string(version())),
                          HasSubstr("n4 is left out: it has smlp 9.9")));
}

TEST_F(Preflight, NodesWithoutAnAnswerAreUnfit) {
  nodes(1);
  answers.push_back({.node = "n2", .line = "", .failure = "it did not answer within 30 s", .received = 0});
  answers.push_back({.node = "n3", .line = "slurmstepd: error: x\n", .failure = "", .received = 1000});
  answers.push_back({.node = "n4", .line = "", .failure = "", .received = 1000});
  EXPECT_THAT(outcome(), ElementsAre("n2 unfit", "n3 unfit", "n4 unfit"));
  EXPECT_THAT(said, AllOf(HasSubstr("n2 is left out: it did not answer within 30 s"),
                          HasSubstr("n3 is left out: its answer is no report: 'slurmstepd: error: x'"),
                          HasSubstr("n4 is left out: it gave no answer")));
}

TEST_F(Preflight, TheRunDirectoryMustBeThereWritableQuickAndRoomy) {
  nodes(1);
  node({set("/run_dir/failure", "did not answer within 5 s")});
  node({set("/run_dir/writable", false)});
  node({set("/run_dir/free_bytes", 9'999'999'999)});
  node({set("/run_dir/sync_seconds", 10.5)});
  node({set("/run_dir/free_bytes", 10'000'000'000), set("/run_dir/sync_seconds", 9.5)});
  EXPECT_THAT(outcome(), ElementsAre("n2 unfit", "n3 unfit", "n4 unfit", "n5 unfit"));
  EXPECT_THAT(said, AllOf(HasSubstr("/runs/demo did not answer within 5 s"), HasSubstr("/runs/demo is not writable"),
                          HasSubstr("has 10 GB free"), HasSubstr("took 10.5 s")));
}

TEST_F(Preflight, CrowdedCoresLocalFoldersAndOtherInstructionsAreWarnedOf) {
  const json full = {{"path", "/scratch"}, {"free_bytes", 0}, {"sync_seconds", 0.0}, {"writable", false}, {"failure", "is full"}};
  nodes(2);
  node({set("/cores", 1)});
  node({set("/local_dir", full)});
  node({set("/isa", "avx2")});
  EXPECT_THAT(outcome(), ElementsAre("n3", "n4", "n5"));
  EXPECT_THAT(said, AllOf(HasSubstr("n3: 2 ranks of 1 thread share 1 core\n"), HasSubstr("n4: checkpoint.local_dir /scratch is full"),
                          HasSubstr("n5: it computes by avx2, others by avx512")));
  job.cluster.threads = 5;
  EXPECT_EQ(outcome().size(), 5u) << "2 ranks of 5 threads on 8 cores";
}

TEST_F(Preflight, GpusMustBeAsManyAsTheRanksThatWantThem) {
  node({set("/devices", 1)});
  node({set("/devices", 2)});
  EXPECT_THAT(outcome(), IsEmpty());
  job.cluster.device = "cuda";
  EXPECT_THAT(outcome(), ElementsAre("n1 unfit"));
  job.cluster.communicator = "staged";
  EXPECT_THAT(outcome(), IsEmpty()) << "they may share one";
  node({set("/devices", 0)});
  EXPECT_THAT(outcome(), ElementsAre("n3 unfit"));
}

TEST_F(Preflight, ClocksAreComparedByWhenTheAnswersCame) {
  nodes(2);
  node({set("/clock_seconds", 1006.0)});
  node({set("/clock_seconds", 990.0)});
  EXPECT_THAT(outcome(), ElementsAre("n3", "n4"));
  EXPECT_THAT(said, AllOf(HasSubstr("n3: its clock is 6.0 s ahead of"), HasSubstr("n4: its clock is 10.0 s behind")));
  answers[2].received = 1006.2;  // it was asked later
  answers[3].received = 990.2;
  EXPECT_THAT(outcome(), IsEmpty());
  job.cluster.clock_skew_seconds = 0.1;
  answers[1].received = 1000.5;
  EXPECT_THAT(outcome(), ElementsAre("n2"));
}

TEST_F(Preflight, OfTwoClocksTheOneThatIsNotTheLaunchersIsWrong) {
  nodes(1);
  node({set("/clock_seconds", 1020.0)});
  EXPECT_THAT(outcome(), ElementsAre("n2")) << said;
}

class ExchangeCheck : public testing::Test {
 protected:
  void pair(int a, int b, double rate) { pairs.push_back({{"a", a}, {"b", b}, {"bytes_per_second", rate}}); }
  ExchangeVerdict verdict() { return judge_exchange(json({{"hosts", hosts}, {"pairs", pairs}, {"median", 1}}).dump(), job); }
  JobConfig job;
  json hosts = {"a", "b", "c", "d"}, pairs = json::array();
};

TEST_F(ExchangeCheck, ANodeWhoseLinksAreAllSlowIsNamedAndItsPartnersAreNot) {
  for (int a = 0; a < 4; ++a) {
    for (int b = a + 1; b < 4; ++b) pair(a, b, a == 2 || b == 2 ? 1e8 : 1e9);
  }
  EXPECT_THAT(verdict().slow_nodes, ElementsAre("c"));
  EXPECT_THAT(verdict().sentences.at(0), AllOf(HasSubstr("node c exchanges slowly with other nodes: 100 MB/s"),
                                               HasSubstr("the median of 4 nodes is 1e+03 MB/s")));
  job.cluster.slow_node_share = 0.1;
  EXPECT_THAT(verdict().slow_nodes, IsEmpty());
}

TEST_F(ExchangeCheck, LinksWithinANodeAreComparedAmongThemselves) {
  hosts = {"a", "a", "b", "b", "c", "c"};
  for (int a = 0; a < 6; ++a) {
    for (int b = a + 1; b < 6; ++b) pair(a, b, a / 2 == b / 2 ? 1e10 : 1e9);
  }
  EXPECT_THAT(verdict().slow_nodes, IsEmpty());
  for (auto& one : pairs) {
    if (one["a"] == 2 && one["b"] == 3) one["bytes_per_second"] = 2e9;
  }
  EXPECT_THAT(verdict().slow_nodes, ElementsAre("b"));
  EXPECT_THAT(verdict().sentences.at(0), HasSubstr("between its own ranks"));
}

TEST_F(ExchangeCheck, TwoNodesSayNothingAndGarbageIsASentence) {
  hosts = {"a", "b", "a", "b"};
  pair(0, 1, 5);
  pair(0, 2, 1e10);
  pair(1, 3, 1e9);
  EXPECT_THAT(verdict().slow_nodes, IsEmpty());
  EXPECT_EQ(verdict().failure, "");
  pair(0, 1000000000, 5);
  EXPECT_THAT(verdict().failure, HasSubstr("makes no sense"));
  pairs = json::array({{{"a", 0}, {"b", 1}, {"bytes_per_second", nullptr}}});
  EXPECT_THAT(verdict().failure, HasSubstr("makes no sense"));
  for (const char* garbage : {"", "mpirun: x", "[]", "{}", "{\"hosts\": 3, \"pairs\": []}"}) {
    EXPECT_THAT(judge_exchange(garbage, job).failure, HasSubstr("no report")) << garbage;
  }
}

// A value nested without end ended the launcher where the sentence about it was made.
TEST_F(ExchangeCheck, AReportNestedWithoutEndIsNone) {
  const std::string deep = std::string(1000000, '[') + std::string(1000000, ']');
  const auto text = R"({"hosts": ["a", "b"], "pairs": [{"a": 0, "b": 1, "x": )" + deep + "}]}";
  EXPECT_THAT(judge_exchange(text, job).failure, HasSubstr("no report"));
}

}  // namespace
}  // namespace smlp
