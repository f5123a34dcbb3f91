#include "worker/batch_loader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <numeric>

#include "data/token_file_writer.h"

namespace smlp {
namespace {

class BatchLoaderTest : public testing::Test {
 protected:
  BatchLoaderTest() : folder_(std::filesystem::temp_directory_path() / ("smlp-batches-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
    TokenFileWriter writer(prefix(), 1000);
    std::vector<std::int32_t> tokens(900);
    std::iota(tokens.begin(), tokens.end(), 0);
    writer.append(tokens);
    writer.end_document();
    writer.finish();
  }
  ~BatchLoaderTest() override { std::filesystem::remove_all(folder_); }
  std::string prefix() const { return (folder_ / "tokens").string(); }
  TokenStream stream() const { return TokenStream({.prefixes = {prefix()}, .weights = {}, .context = 8, .seed = 3}); }

  std::filesystem::path folder_;
};

TEST_F(BatchLoaderTest, GivesWhatTheStreamGivesWhetherReadAheadOrNot) {
  const auto direct = stream(), behind = stream();
  BatchLoader loader(behind, 8);
  std::vector<std::int32_t> tokens(32), targets(32);
  // In the order announced, then with a jump that nobody announced.
  for (const std::int64_t position : {0, 4, 8, 12, 100, 104, 0}) {
    const auto& batch = loader.take(position, 4, position + 4);
    direct.read(position, 4, tokens, targets);
    EXPECT_EQ(batch.position, position);
    EXPECT_EQ(batch.tokens, tokens);
    EXPECT_EQ(batch.targets, targets);
  }
}

TEST_F(BatchLoaderTest, AnotherCountIsReadAnew) {
  const auto source = stream();
  BatchLoader loader(source, 8);
  EXPECT_EQ(loader.take(0, 2, 2).tokens.size(), 16U);
  EXPECT_EQ(loader.take(2, 3, 5).tokens.size(), 24U);
}

}  // namespace
}  // namespace smlp
