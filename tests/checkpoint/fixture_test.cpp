// A checkpoint of each format version, written once and kept: it stays readable, to the bit.
#include <gtest/gtest.h>

#include "tests/checkpoint/sample.h"

namespace smlp::test {

TEST(Fixture, Format1StaysReadable) {
  const std::filesystem::path path = "tests/checkpoint/fixtures/format-1/step-00000042";
  const auto info = verify_checkpoint(path);
  ASSERT_TRUE(info.valid) << info.reason;
  EXPECT_EQ(info.step, 42);
  EXPECT_EQ(info.ranks, 2);
  EXPECT_EQ(find_checkpoint(path.parent_path()), path);
  const auto digests = digest_tensors(path);
  const std::map<std::string, std::string> expected = {
      {"adam.m/blocks.1.experts.out.bias", "630e292d875dcd988e256d8b005c9140"},
      {"blocks.0.norm.weight", "c3b930d6f5d541ddf6246c3ae6d4f82c"},
      {"blocks.1.experts.out.bias", "c96f90d291b81cd5daa360d33a071e12"},
      {"counts", "a317a121ccaad7d777d1f3561427f2f5"},
      {"halves", "876fa97801f9f30075a7167b5960638a"},
      {"nothing", "99aa06d3014798d86001c324468d497f"},
      {"scale", "0f26024f0b63733a5e54298015593809"},
      {"table", "89bf9bb5398581eccc7671fb57081f91"},
      {"words", "dc574a8d812beb43d604f626a321c088"}};
  EXPECT_EQ(digests, expected);
  EXPECT_EQ(digest_all(digests), "ad8e343e88b3cef7007467182b3f7072");
  const auto state = read_run_state(path);
  EXPECT_EQ(state.integer("step"), 42);
  EXPECT_EQ(state.integers.at("window"), (std::vector<std::int64_t>{1, 2, 42}));
  EXPECT_EQ(state.texts.at("fingerprint"), "0123456789abcdef");
  EXPECT_EQ(state.numbers.at("best"), sample_state(42).numbers.at("best"));
  std::vector<SampleTensor> tensors;
  for (const auto& tensor : sample_tensors()) {
    if (expected.contains(tensor.name)) tensors.push_back(tensor);
  }
  EXPECT_EQ(load_fault(path, 3, 42, tensors), "");
}

}  // namespace smlp::test
