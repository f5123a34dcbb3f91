// `smlp compare` on run directories written here: whole, restarted, dead, old, damaged, hostile.
#include <gmock/gmock.h>

#include <cmath>

#include "command_line.h"

namespace smlp {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

class Compare : public test::CommandLine {
 protected:
  struct Line {
    int step;
    double seconds, loss;
    std::optional<double> validation_loss = std::nullopt;
    int attempt = 1;
  };
  static std::string text(const Line& line) {
    json object = {{"step", line.step}, {"step_seconds", line.seconds}, {"loss", line.loss}, {"attempt", line.attempt},
                   {"tokens", 2048}, {"tokens_per_second", 2048 / line.seconds}, {"time", 1000.0 + line.step},
                   {"expert_balance", 1.5},
                   {"blocks", {{{"block", 1}, {"expert_tokens", {30, 10}}, {"dropped_tokens", 10}}}}};
    if (line.validation_loss) object["validation_loss"] = *line.validation_loss;
    return object.dump() + "\n";
  }
  void write_run(const std::string& folder, const std::string& name, const std::vector<Line>& lines,
                 const std::string& job = "", const std::string& end = "done") {
    fs::create_directories(place / folder);
    write(folder + "/run.json", json({{"name", name}}).dump());
    write(folder + "/job.toml",
          "name = " + json(name).dump() + "\n[model]\nkind = \"smlp\"\ncontext = 64\n[data]\ntokenizer = \"bytes\"\n"
          "valid = [\"valid\"]\n[train]\nsteps = 40\n" + job);
    std::string steps;
    for (const auto& line : lines) steps += text(line);
    write(folder + "/metrics.jsonl", steps);
    json start = {{"event", "start"}, {"step", 0}, {"ranks", 2},
                  {"parameters", {{"total", 3000000}, {"non_expert", 1000000}, {"expert", 500000}, {"experts", 4}}},
                  {"forward_macs", {{"paper", 256000000}, {"executed", 250000000}}}};
    json untrained = {{"event", "evaluation"}, {"step", 0}, {"validation_loss", 6.0}, {"tokens", 5000}};
    write(folder + "/events.jsonl", R"({"event":"run_started"})" "\n" + start.dump() + "\n" + untrained.dump() + "\n" +
                                        (end.empty() ? "" : json({{"event", end}}).dump() + "\n"));
  }
  json facts(std::vector<std::string> words) {
    words.insert(words.begin(), "compare");
    words.push_back("--json");
    const auto answer = smlp(words);
    EXPECT_EQ(answer.code, 0) << answer.err;
    return json::parse(answer.out, nullptr, false);
  }
  const std::vector<Line> steady = {{10, 2, 4.0, 4.0}, {20, 2, 3.5, 3.4}, {30, 2, 3.1, 3.0}, {40, 2, 3.0, 3.1}};
};

// Its perplexity was printed with 92 digits, and the table was as wide.
TEST_F(Compare, ShowsTheHugePerplexityOfARunThatDivergedInFewDigits) {
  write_run("runs/a", "alpha", {{10, 2, 4.0, 211.5}, {20, 2, 3.5, 212.0}});
  const auto answer = smlp({"compare", "runs/a", "--to", "1e9"});
  EXPECT_THAT(answer.out, AllOf(HasSubstr(" 1.18e+92 "), HasSubstr(" 403.43 "), HasSubstr("to 1.00e+09")));
  EXPECT_NEAR(facts({"runs/a"})["runs"][0]["last"]["perplexity"].get<double>(), std::exp(212.0), 1e80) << "JSON has it whole";
}

TEST_F(Compare, PutsRunsSideBySide) {
  write_run("runs/a", "alpha", steady);
  write_run("runs/b", "beta", {{10, 1, 4.0, 3.8}, {20, 1, 3.4, 3.5}});
  const auto answer = smlp({"compare", "runs/a", "runs/b"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(answer.err, "");
  EXPECT_THAT(answer.out, AllOf(HasSubstr("alpha"), HasSubstr("beta"), HasSubstr("3.00M"), HasSubstr("2.00M"),
                                HasSubstr("to 33.12"), HasSubstr("1.50")));
  const auto document = facts({"runs/a", "runs/b"});
  EXPECT_NEAR(document["quality"], std::exp(3.5), 1e-9) << "the best that both reached";
  const auto& a = document["runs"][0];
  EXPECT_EQ(a["run"], "runs/a");
  EXPECT_EQ(a["parameters"], 3000000);
  EXPECT_EQ(a["forward_macs_per_token"], 2000000) << "of 2 x 64 tokens";
  EXPECT_EQ(a["training_seconds"], 8.0);
  EXPECT_EQ(a["best"]["step"], 30);
  EXPECT_EQ(a["last"]["step"], 40);
  EXPECT_NEAR(a["last"]["perplexity"], std::exp(3.1), 1e-9);
  EXPECT_EQ(a["steps_to_quality"], 20);
  EXPECT_EQ(a["seconds_to_quality"], 4.0);
  EXPECT_EQ(a["tokens_per_second"], 1024.0);
  EXPECT_EQ(a["dropped_share"], 0.2);
  EXPECT_EQ(a["evaluations"].size(), 5u) << "the untrained model's among them";
  EXPECT_EQ(a["evaluations"][0]["seconds"], 0.0);
}

TEST_F(Compare, TimeToAQualityIsAsAskedFor) {
  write_run("a", "alpha", steady);
  EXPECT_EQ(facts({"a", "--to", "25"})["runs"][0]["steps_to_quality"], 30);
  EXPECT_TRUE(facts({"a", "--to", "5"})["runs"][0]["steps_to_quality"].is_null()) << "never so good";
  for (const std::string wrong : {"0", "nan", "-3", "few"}) EXPECT_EQ(smlp({"compare", "a", "--to", wrong}).code, 64) << wrong;
}

TEST_F(Compare, WritesCsvThatOthersRead) {
  write_run("a", "al,pha \"x\"", steady);
  write_run("b", "beta", {});
  const auto answer = smlp({"compare", "a", "b", "--csv"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  std::vector<std::string> lines;
  for (std::istringstream all(answer.out); lines.emplace_back(), std::getline(all, lines.back());) continue;
  lines.pop_back();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[0], AllOf(HasSubstr("run,name,kind"), HasSubstr("best_perplexity")));
  EXPECT_THAT(lines[1], HasSubstr("a,\"al,pha \"\"x\"\"\",smlp,"));
  const auto commas = [](const std::string& line) { return std::count(line.begin(), line.end(), ','); };
  EXPECT_EQ(commas(lines[2]), commas(lines[0]));
  EXPECT_EQ(smlp({"compare", "a", "--csv", "--json"}).code, 64);
}

TEST_F(Compare, WhatWasDoneAgainCountsOnce) {
  write_run("a", "alpha",
            {{10, 2, 4.0, 4.0}, {20, 2, 3.5, 3.4}, {25, 2, 3.4}, {20, 2, 3.5, 3.3, 2}, {30, 2, 3.1, 3.0, 2}});
  const auto run = facts({"a"})["runs"][0];
  EXPECT_EQ(run["training_seconds"], 6.0) << "steps 10, 20 and 30";
  EXPECT_EQ(run["evaluations"].size(), 4u);
  EXPECT_NEAR(run["evaluations"][2]["loss"], 3.3, 1e-12) << "as the second attempt found it";
}

// An evaluation whose step has no line was dated by the evaluation before it.
TEST_F(Compare, AnEvaluationWhoseStepsLineIsLostComesAfterAllStepsBeforeIt) {
  write_run("a", "alpha", {{10, 2, 4.0, 4.0}, {20, 2, 3.5}, {30, 2, 3.1}});
  std::ofstream(place / "a/events.jsonl", std::ios::app) << R"({"event":"evaluation","step":40,"validation_loss":3.0})" "\n";
  const auto evaluations = facts({"a"})["runs"][0]["evaluations"];
  ASSERT_EQ(evaluations.size(), 3u);
  EXPECT_EQ(evaluations[1]["seconds"], 2.0);
  EXPECT_EQ(evaluations[2]["seconds"], 6.0);
}

// It was read from the lines of steps alone, and that of an evaluation at a start is in its event.
TEST_F(Compare, AnAgreementIsAlsoThatOfAnEvaluationWithoutAStep) {
  write_run("a", "alpha", {{10, 2, 4.0}});
  const auto told = [](int step, double agreement) {
    const json event = {{"event", "evaluation"}, {"step", step}, {"validation_loss", 5.0}, {"routing_agreement", agreement}};
    return event.dump() + "\n";
  };
  const auto before = test::contents(place / "a/events.jsonl");
  write("a/events.jsonl", before + told(0, 0.5) + told(10, 0.25));
  EXPECT_EQ(facts({"a"})["runs"][0]["routing_agreement"], 0.25);
  write("a/events.jsonl", before + told(0, 0.5) + told(10, 0.25) + json({{"event", "start"}, {"step", 5}}).dump() + "\n");
  EXPECT_EQ(facts({"a"})["runs"][0]["routing_agreement"], 0.5) << "what lies beyond a start is done again";
}

TEST_F(Compare, RunsThatDoNotCompareAreWarnedOf) {
  write_run("a", "alpha", steady);
  write_run("b", "beta", steady, "eval_sequences = 7\n");
  write_run("c", "gamma", {{10, 2, 4.0}}, "", "");
  write(std::string("c/events.jsonl"), R"({"event":"attempt_started","attempt":1})" "\n");
  const auto answer = smlp({"compare", "a", "b", "c"});
  EXPECT_EQ(answer.code, 0);
  EXPECT_THAT(answer.err, AllOf(HasSubstr("different validation data"), HasSubstr("7 sequences"),
                                HasSubstr("gamma was never evaluated")));
  EXPECT_THAT(answer.out, HasSubstr("dead"));
}

// It stood as "-" in the table, where the CSV had "inf".
TEST_F(Compare, APerplexityBeyondAllNumbersIsInfinite) {
  write_run("a", "alpha", {{10, 2, 4.0, 4.0}, {20, 2, 900.0, 900.0}});
  const auto table = smlp({"compare", "a"}), csv = smlp({"compare", "a", "--csv"});
  EXPECT_THAT(table.out, testing::ContainsRegex(" inf +54.60 "));
  EXPECT_THAT(csv.out, HasSubstr(",inf,54.59"));
}

TEST_F(Compare, OldAndDamagedRunsStillTellWhatTheyHold) {
  write_run("a", "alpha", steady);
  write("a/events.jsonl", "{\"event\":\"start\",\"step\":0,\"detail\":\"from the first step\"}\nrubbish\n{\"event\":");
  write("a/job.toml", "no toml at all ][");
  write("a/metrics.jsonl",
        test::contents(place / "a/metrics.jsonl") + "[1,2]\n{\"step\":\"x\"}\n" +
            R"({"step":41,"step_seconds":"long","blocks":[1,{"expert_tokens":["a",null]}]})" + "\n{\"step\":42");
  const auto run = facts({"a"})["runs"][0];
  EXPECT_TRUE(run["parameters"].is_null());
  EXPECT_EQ(run["step"], 41);
  EXPECT_EQ(run["best"]["step"], 30);
  EXPECT_THAT(smlp({"compare", "a"}).out, HasSubstr("  -  "));
}

TEST_F(Compare, WhatIsNoRunIsRefused) {
  write_run("a", "alpha", steady);
  for (const std::string path : {"nowhere", "job.toml", "."}) {
    const auto answer = smlp({"compare", "a", path});
    EXPECT_EQ(answer.code, 78) << path;
    EXPECT_THAT(answer.err, HasSubstr(path + " is no run directory"));
    EXPECT_EQ(answer.out, "");
  }
  EXPECT_EQ(smlp({"compare"}).code, 64);
}

class ComparePicture : public Compare {
 protected:
  void SetUp() override {
    Compare::SetUp();
    if (!IsSkipped() && std::system("command -v gnuplot >/dev/null") != 0) GTEST_SKIP() << "gnuplot (gnuplot-nox) is not here";
  }
};

TEST_F(ComparePicture, ShowsALineARun) {
  write_run("a", "alpha", steady);
  write_run("b", "beta", {{10, 1, 4.0, 3.8}, {20, 1, 3.4, 3.5}});
  const auto answer = smlp({"compare", "a", "b", "--svg", "both.svg"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  const auto picture = test::contents(place / "both.svg");
  EXPECT_THAT(picture, AllOf(HasSubstr("<svg"), HasSubstr("</svg>"), HasSubstr("alpha"), HasSubstr("beta"),
                             HasSubstr("validation perplexity"), HasSubstr("steps"), HasSubstr("training time")));
}

// Names reach gnuplot: none of them may be a command to it, or markup of the picture.
TEST_F(ComparePicture, HostileNamesAreShownNotObeyed) {
  const std::string command = "'; system('touch owned'); print '";
  write_run("a", command, steady);
  write_run("b", "`touch owned`", steady);
  write_run("c", "<script>alert(1)</script> & \"x\"", steady);
  write_run("d", "{/Symbol a}_b^c @x~y\\n%s", steady);
  write_run("e\nf", "line\nbreak\x1b[31m", steady);
  const auto answer = smlp({"compare", "a", "b", "c", "d", "e\nf", "--svg", "all.svg"});
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_FALSE(fs::exists(place / "owned"));
  const auto picture = test::contents(place / "all.svg");
  EXPECT_THAT(picture, AllOf(Not(HasSubstr("<script>")), Not(HasSubstr("\x1b")), HasSubstr("touch owned"),
                             HasSubstr("_b^c")));
  EXPECT_THAT(answer.out, Not(HasSubstr("\x1b")));
  const auto lines = std::count(answer.out.begin(), answer.out.end(), '\n');
  EXPECT_EQ(lines, 9) << "a head, five runs, three lines of explanation: " << answer.out;
  if (std::system("command -v python3 >/dev/null") == 0) {
    const auto parse = "cd '" + place.string() + "' && python3 -c 'import xml.dom.minidom as m; m.parse(\"all.svg\")'";
    EXPECT_EQ(std::system(parse.c_str()), 0) << "the picture is XML";
  }
}

TEST_F(ComparePicture, NamesOfBytesThatAreNoTextDoNoHarm) {
  write_run("a", "x", steady);
  fs::rename(place / "a", place / "a\xff\xfe");
  write_run("b", "x", steady);
  const auto answer = smlp({"compare", "a\xff\xfe", "b", "--svg", "both.svg"});
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(test::contents(place / "both.svg"), HasSubstr("a??"));
  EXPECT_EQ(facts({"a\xff\xfe", "b"})["runs"].size(), 2u);
}

TEST_F(ComparePicture, WhereNothingCanBeDrawnThatIsSaid) {
  write_run("a", "alpha", {{10, 2, 4.0}});
  const auto nothing = smlp({"compare", "a", "--svg", "none.svg"});
  EXPECT_EQ(nothing.code, 78);
  EXPECT_THAT(nothing.err, HasSubstr("nothing to draw"));
  write_run("b", "beta", steady);
  EXPECT_EQ(smlp({"compare", "b", "--svg", "no/such/folder/x.svg"}).code, 74);
  EXPECT_FALSE(fs::exists(place / "none.svg"));
}

TEST_F(Compare, WithoutGnuplotThePackageIsNamed) {
  write_run("a", "alpha", steady);
  const auto line = "cd '" + place.string() + "' && PATH=/nowhere '" + std::getenv("SMLP_BIN") +
                    "/smlp' compare a --svg x.svg >out 2>err";
  EXPECT_EQ(WEXITSTATUS(std::system(line.c_str())), 69);
  EXPECT_THAT(test::contents(place / "err"), HasSubstr("gnuplot-nox"));
  EXPECT_THAT(test::contents(place / "out"), HasSubstr("alpha")) << "the table is there all the same";
}

}  // namespace
}  // namespace smlp
