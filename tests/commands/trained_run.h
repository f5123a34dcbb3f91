// What a tiny run of the real worker leaves behind, for the tests of commands that look at it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "command_line.h"

namespace smlp::test {

// Trained once for all tests; each gets a copy of its own.
class Trained : public CommandLine {
 protected:
  static inline const std::string last = "runs/small/checkpoints/step-00000004", before = "runs/small/checkpoints/step-00000002";

  static void TearDownTestSuite() { std::filesystem::remove_all(original()); }
  void SetUp() override {
    CommandLine::SetUp();
    if (IsSkipped()) return;
    if (!std::filesystem::exists(original())) train();
    std::filesystem::copy(original(), place / "runs", std::filesystem::copy_options::recursive);
  }
  void train() {
    const auto answer = smlp({"run", "job.toml", "--ranks", "1", "--set", "train.steps=4", "--set", "train.eval_every=2",
                              "--set", "checkpoint.every_steps=2"});
    ASSERT_EQ(answer.code, 0) << answer.err << contents(place / "runs/small/logs/attempt-0001/rank-0000.log");
    std::filesystem::rename(place / "runs", original());
  }
  static std::filesystem::path original() { return ::testing::TempDir() + "smlp-trained-" + std::to_string(getpid()); }

  nlohmann::json facts(std::vector<std::string> words) {
    words.push_back("--json");
    const auto answer = smlp(words);
    EXPECT_EQ(answer.code, 0) << answer.err;
    const auto document = nlohmann::json::parse(answer.out, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << "not one JSON document: " << answer.out;
    return document;
  }
  void change(const std::string& file, const std::function<void(std::string&)>& how) {
    auto bytes = contents(place / file);
    how(bytes);
    write(file, bytes);
  }
  // Every file of the run, with what it holds, but for the locks that any start takes.
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(place / "runs/small")) {
      const bool lock = entry.path().filename().string().ends_with("lock");
      if (entry.is_regular_file() && !lock) found[entry.path().lexically_relative(place)] = contents(entry.path());
    }
    return found;
  }
  // What `sh` makes of a line in which smlp is the program under test.
  Answer shell(const std::string& line) {
    const auto path = std::string(std::getenv("SMLP_BIN")) + ":" + std::getenv("PATH");
    const auto words = "cd '" + place.string() + "' && PATH='" + path + "' && { " + line + "; } >out 2>err </dev/null";
    const int status = std::system(words.c_str());
    return {WEXITSTATUS(status), contents(place / "out"), contents(place / "err")};
  }
};

}  // namespace smlp::test
