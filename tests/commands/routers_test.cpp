// Jobs that route tokens by switch, gshard and hash, with the real worker: trained, resumed, evaluated, refused.
#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "command_line.h"

namespace smlp {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class Routers : public test::CommandLine {
 protected:
  test::Answer run(const std::vector<std::string>& settings, int steps = 2) {
    std::vector<std::string> words = {"run", "job.toml", "--ranks", "2", "--set", "train.steps=" + std::to_string(steps),
                                      "--set", "checkpoint.every_steps=2"};
    for (const auto& setting : settings) words.insert(words.end(), {"--set", setting});
    return finish(start(words), 60);
  }
  std::vector<json> metrics() const {
    std::vector<json> lines;
    std::ifstream file(place / "runs/small/metrics.jsonl");
    for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
    return lines;
  }
  std::string log() const { return test::contents(place / "runs/small/logs/attempt-0001/rank-0000.log"); }
  // Token i to expert (i · factor) % 4, for the 320 ids of the padded byte vocabulary.
  void write_table(int factor) {
    std::string text;
    for (int i = 0; i < 320; ++i) text += std::to_string(i * factor % 4) + (i % 16 == 15 ? "\n" : " ");
    write("experts.txt", text);
  }
};

TEST_F(Routers, SwitchAndGshardTrainAndTellWhatTheyDropAndAdd) {
  for (const std::string tokens : {"switch", "gshard"}) {
    std::filesystem::remove_all(place / "runs");
    const auto answer = run({"routing.tokens=" + tokens, "routing.capacity_factor=0.5", "routing.jitter=0.01",
                             "routing.z_weight=0.001", "routing.balance_weight=0.1"});
    ASSERT_EQ(answer.code, 0) << answer.err << log();
    const auto lines = metrics();
    ASSERT_EQ(lines.size(), 2u);
    for (const auto& line : lines) {
      EXPECT_TRUE(std::isfinite(line["loss"].get<double>()));
      EXPECT_GT(line["auxiliary_loss"].get<double>(), 0.15) << "two sparse layers, each 1 at least, by 0.1";
      EXPECT_LT(line["auxiliary_loss"].get<double>(), 1);
      EXPECT_NEAR(line["auxiliary_loss"].get<double>(),
                  0.1 * line["balance_loss"].get<double>() + 0.001 * line["z_loss"].get<double>(), 1e-9);
      double dropped = 0, taken = 0;
      for (const auto& block : line["blocks"]) {
        dropped += block["dropped_tokens"].get<double>();
        for (const double n : block["expert_tokens"]) taken += n;
      }
      EXPECT_EQ(dropped + taken, 2 * 4 * 16 * (tokens == "gshard" ? 2 : 1)) << "every choice is placed or dropped";
      EXPECT_GE(dropped, 2 * 4 * 16 * (tokens == "gshard" ? 2 : 1) / 2) << "half the places";
    }
    EXPECT_EQ(smlp({"eval", "runs/small", "--data", "valid"}).code, 0);
  }
}

TEST_F(Routers, DroplessTrainsWithoutDropping) {
  const auto answer = run({"routing.tokens=gshard", "routing.capacity_factor=0"});
  ASSERT_EQ(answer.code, 0) << answer.err << log();
  for (const auto& line : metrics()) {
    for (const auto& block : line["blocks"]) EXPECT_EQ(block["dropped_tokens"], 0);
  }
}

TEST_F(Routers, TheBiasOfExpertsGoesIntoTheCheckpointAndIsThatOfOneRankOnAnyNumber) {
  const std::vector<std::string> settings = {
      "routing.tokens=switch", "routing.gate=sigmoid",       "routing.expert_bias_rate=0.01", "routing.balance_counts=all",
      "train.precision=f64",   "routing.group_sequences=1",  "train.micro_batch=1",           "checkpoint.every_steps=1"};
  const auto train = [&](const std::string& directory, int ranks, int steps) {
    std::vector<std::string> words = {"run",   "job.toml", "--run-dir", directory, "--ranks", std::to_string(ranks),
                                      "--set", "train.steps=" + std::to_string(steps)};
    for (const auto& setting : settings) words.insert(words.end(), {"--set", setting});
    const auto answer = finish(start(words), 60);
    EXPECT_EQ(answer.code, 0) << answer.err;
  };
  const auto biases = [&](const std::string& directory) {
    const auto digest = json::parse(smlp({"checkpoint", "digest", directory, "--json"}).out)["tensors"];
    std::map<std::string, std::string> found;
    for (const auto& [name, value] : digest.items()) {
      if (name.ends_with("router.bias")) found[name] = value;
    }
    return found;
  };
  train("two", 2, 1);
  const auto first = biases("two");
  EXPECT_EQ(first.size(), 2u);
  train("two", 2, 4);
  const auto wanted = biases("two");
  EXPECT_NE(wanted, first) << "every step moves them";
  for (const int ranks : {1, 4}) {
    train(std::to_string(ranks), ranks, 4);
    EXPECT_EQ(biases(std::to_string(ranks)), wanted) << ranks << " ranks";
  }
  train("straight", 2, 4);
  const auto diff = smlp({"checkpoint", "diff", "two/checkpoints/step-00000004", "straight/checkpoints/step-00000004"});
  EXPECT_EQ(diff.code, 0) << diff.out << "a run that went on holds the same biases as one that never stopped";
  EXPECT_EQ(smlp({"eval", "two", "--data", "valid"}).code, 0);
  EXPECT_EQ(smlp({"check", "causality", "two"}).code, 0);
}

TEST_F(Routers, SinkhornsSharesTrainAndTellTheirRounds) {
  const auto answer = run({"routing.tokens=gshard", "routing.first_expert=sinkhorn", "routing.second_expert=all",
                           "routing.normalise=never", "routing.balance_weight=0", "routing.capacity_factor=0"});
  ASSERT_EQ(answer.code, 0) << answer.err << log();
  for (const auto& line : metrics()) {
    EXPECT_EQ(line["auxiliary_loss"], 0) << "turned off by its weight";
    EXPECT_GE(line["balance_loss"].get<double>(), 1.9) << "and told all the same: two layers";
    EXPECT_GT(line["z_loss"].get<double>(), 0);
    for (const auto& block : line["blocks"]) EXPECT_GT(block["assignment_rounds"].get<double>(), 0);
  }
}

TEST_F(Routers, TheTableOfARunIsKeptAndItsChangeRefused) {
  write_table(1);
  const std::vector<std::string> settings = {"routing.tokens=hash", "routing.hash_table=experts.txt"};
  ASSERT_EQ(run(settings).code, 0) << log();
  ASSERT_EQ(run(settings, 4).code, 0) << "the same table";
  const auto shown = smlp({"checkpoint", "digest", "runs/small"});
  EXPECT_THAT(shown.out, HasSubstr("tmoe.table")) << shown.err;

  write_table(3);
  const auto refused = run(settings, 6);
  EXPECT_EQ(refused.code, 78);
  EXPECT_THAT(refused.err + refused.out, AllOf(HasSubstr("160 of 320 token ids to other experts"), HasSubstr("token 1: to 3, not 1")));

  std::filesystem::remove(place / "experts.txt");
  const auto gone = run(settings, 6);
  EXPECT_EQ(gone.code, 78);
  EXPECT_THAT(gone.err, HasSubstr("\"experts.txt\": there is no file experts.txt"));
  write("experts.txt", "1 2 3");
  const auto checked = smlp({"config", "check", "job.toml", "--set", settings[0], "--set", settings[1]});
  EXPECT_EQ(checked.code, 78) << "it once looked for the file alone, and the ranks found what is wrong with it";
  EXPECT_THAT(checked.err, AllOf(HasSubstr("--set routing.hash_table"), HasSubstr("it holds 3 entries")));
  for (const std::string command : {"run", "submit"}) {  // they once looked where routing.tokens is written alone
    std::vector<std::string> words = {command, "job.toml", "--run-dir", "runs/new", "--set", "model.kind=hash", "--set", settings[1]};
    if (command == "submit") words.emplace_back("--dry-run");
    const auto told = smlp(words);
    EXPECT_EQ(told.code, 78) << command << told.out;
    EXPECT_THAT(told.err, HasSubstr("--set routing.hash_table")) << command;
    EXPECT_FALSE(std::filesystem::exists(place / "runs/new")) << command;
  }
  std::filesystem::remove(place / "experts.txt");
  // What is made of a checkpoint needs its table alone.
  EXPECT_EQ(smlp({"eval", "runs/small", "--data", "valid"}).code, 0);
  write("experts.txt", "1 2 3");
  EXPECT_THAT(run(settings, 6).err, HasSubstr("holds 3 entries"));
}

TEST_F(Routers, ABalancedTableFollowsTheTrainingData) {
  ASSERT_EQ(run({"routing.tokens=hash", "routing.hash_table=balanced"}).code, 0) << log();
  ASSERT_EQ(run({"routing.tokens=hash", "routing.hash_table=balanced"}, 4).code, 0) << log();
  write_tokens("train", 900, 200);
  const auto refused = run({"routing.tokens=hash", "routing.hash_table=balanced"}, 6);
  EXPECT_EQ(refused.code, 78);
  EXPECT_THAT(refused.err + refused.out, HasSubstr("bring back the data"));
}

TEST_F(Routers, WordsAndNumbersThatFitNoRouterAreRefused) {
  for (const auto& [setting, part] : std::vector<std::pair<std::string, std::string>>{
           {"routing.second_expert=sampled", "sampling"},
           {"routing.capacity_factor=-1", "routing.capacity_factor"},
           {"routing.jitter=1.0", "routing.jitter"},
           {"routing.second_threshold=0.0", "routing.second_threshold"},
           {"routing.capacity_rule=fair", "fairseq"}}) {
    const auto answer = run({"routing.tokens=gshard", setting});
    EXPECT_EQ(answer.code, 78) << setting;
    EXPECT_THAT(answer.err, HasSubstr(part));
  }
  EXPECT_EQ(run({"routing.tokens=gshard", "model.experts=1"}).code, 78);
}

}  // namespace
}  // namespace smlp
