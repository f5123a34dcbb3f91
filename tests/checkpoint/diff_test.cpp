#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "checkpoint/manifest.h"
#include "tests/checkpoint/sample.h"

namespace smlp::test {

namespace fs = std::filesystem;

const std::vector<SampleTensor> tensors = {{"bf16", {2, 3}, DType::bf16, Spread::replicated},
                                           {"f16", {4}, DType::f16, Spread::replicated},
                                           {"f32", {4, 5}, DType::f32, Spread::replicated},
                                           {"f64", {3}, DType::f64, Spread::replicated},
                                           {"i64", {3}, DType::i64, Spread::replicated}};

// All zeros but for what `change` writes into the named tensor's bytes.
fs::path saved(const fs::path& root, const std::string& name, const std::function<void(std::byte*)>& change,
               RunState state = sample_state(3), const std::vector<SampleTensor>& list = tensors) {
  SampleRank memory(0, 1, list);
  for (const auto& piece : memory.pieces()) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(piece.local.bytes()), std::byte{0});
    if (piece.name == name) change(bytes.data());
    memory.backend().upload(bytes.data(), piece.local);
  }
  CheckpointWriter writer(options_for(root, 1));
  writer.begin(memory.backend(), memory.pieces(), state);
  writer.wait();
  writer.publish();
  writer.wait();
  EXPECT_EQ(writer.state(), CheckpointWriter::State::published) << writer.failure();
  return step_path(root, 3);
}

template <class T>
void put(std::byte* bytes, int index, T value) {
  std::memcpy(bytes + index * static_cast<int>(sizeof(T)), &value, sizeof(T));
}

class Diff : public ::testing::Test {
 protected:
  fs::path plain() {
    return saved(scratch.root() / "a", "", [](std::byte*) {});
  }
  std::vector<TensorDifference> against(const std::string& name,
                                        const std::function<void(std::byte*)>& change) {
    const auto other = saved(scratch.root() / "b", name, change);
    const auto found = diff_checkpoints(plain(), other);
    EXPECT_NE(digest_all(digest_tensors(plain())), digest_all(digest_tensors(other)));
    return found;
  }
  Scratch scratch;
};

TEST_F(Diff, NothingBetweenACheckpointAndItself) { EXPECT_TRUE(diff_checkpoints(plain(), plain()).empty()); }

TEST_F(Diff, SaysWhereByHowMuchAndHowOften) {
  const auto found = against("f32", [](std::byte* b) {
    put(b, 7, 0.25f);
    put(b, 8, -2.0f);
    put(b, 19, 1.0f);
  });
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].name, "f32");
  EXPECT_EQ(found[0].what, "first differs at [1, 2]: 0 against 0.25; largest difference 2; 3 of 20 elements");
  EXPECT_EQ(found[0].elements, 3);
  EXPECT_EQ(found[0].first, 7);
  EXPECT_EQ(found[0].largest, 2);
}

TEST_F(Diff, KnowsEveryType) {
  EXPECT_EQ(against("bf16", [](std::byte* b) { put(b, 5, std::uint16_t{0x3fc0}); }).at(0).what,
            "first differs at [1, 2]: 0 against 1.5; largest difference 1.5; 1 of 6 elements");
  EXPECT_EQ(against("f16", [](std::byte* b) { put(b, 1, std::uint16_t{0xc500}); }).at(0).what,
            "first differs at [1]: 0 against -5; largest difference 5; 1 of 4 elements");
  EXPECT_EQ(against("f16", [](std::byte* b) { put(b, 1, std::uint16_t{0x0001}); }).at(0).largest, 0x1p-24);
  EXPECT_EQ(against("f64", [](std::byte* b) { put(b, 2, 1e-300); }).at(0).largest, 1e-300);
  EXPECT_EQ(against("i64", [](std::byte* b) { put(b, 0, std::int64_t{-7}); }).at(0).what,
            "first differs at [0]: 0 against -7; largest difference 7; 1 of 3 elements");
}

TEST_F(Diff, SeesSignsOfZeroAndNaN) {
  EXPECT_EQ(
      against("f64", [](std::byte* b) { put(b, 1, -0.0); }).at(0).what,
      "first differs at [1]: 0 against -0, equal but for their bits; largest difference 0; 1 of 3 elements");
  EXPECT_NE(against("f64", [](std::byte* b) { put(b, 1, std::bit_cast<double>(0x7ff8000000000000)); })
                .at(0)
                .what.find("1 of 3 elements, 1 of them with NaN"),
            std::string::npos);
}

TEST_F(Diff, ComparesTheRunState) {
  auto state = sample_state(3);
  state.integers["tokens"] = {1};
  state.numbers["best"][1] = 0.0;  // was -0
  state.texts["more"] = "x";
  state.texts.erase("empty");
  const auto other = saved(
      scratch.root() / "b", "", [](std::byte*) {}, state);
  const auto found = diff_checkpoints(plain(), other);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].name, "run state: integers.tokens");
  EXPECT_EQ(found[0].what, "3000 against 1");
  EXPECT_EQ(found[1].name, "run state: numbers.best");
  EXPECT_EQ(found[1].what, "[inf, -0, 0.1, 1e-310] against [inf, 0, 0.1, 1e-310]");
  EXPECT_EQ(found[2].name, "run state: texts.empty");
  EXPECT_EQ(found[2].what, " against nothing");
  EXPECT_EQ(found[3].name, "run state: texts.more");
}

TEST_F(Diff, ComparesWhatThereIs) {
  auto list = tensors;
  list.erase(list.begin());
  list[1].shape = {5, 4};
  list[2].dtype = DType::i64;
  list.push_back({"new", {1}, DType::f32, Spread::replicated});
  const auto other = saved(
      scratch.root() / "b", "", [](std::byte*) {}, sample_state(3), list);
  const auto found = diff_checkpoints(plain(), other);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].name, "bf16");
  EXPECT_NE(found[0].what.find("only in "), std::string::npos);
  EXPECT_EQ(found[1].what, "f32 [4, 5] against f32 [5, 4]");
  EXPECT_EQ(found[2].what, "f64 [3] against i64 [3]");
  EXPECT_EQ(found[3].name, "new");
}

TEST_F(Diff, FindsADifferenceBeyondTheFirstBlockAndAcrossLayouts) {
  const std::vector<SampleTensor> large = {{"large", {1000, 777}, DType::f32, Spread::flat}};
  const auto a = scratch.root() / "a", b = scratch.root() / "b";
  ASSERT_TRUE(save(options_for(a, 3), 3, large).published);
  ASSERT_TRUE(save(options_for(b, 2), 3, large).published);
  EXPECT_TRUE(diff_checkpoints(step_path(a, 3), step_path(b, 3)).empty());
  SampleRank memory(0, 1, large);
  memory.fill(3);
  const std::int64_t at = 600 * 777 + 5;
  const float value = 1e30f;
  memory.backend().upload(&value, memory.pieces()[0].local.row_range(at, 1));
  CheckpointWriter writer(options_for(scratch.root() / "c", 1));
  writer.begin(memory.backend(), memory.pieces(), sample_state(3));
  writer.wait();
  writer.publish();
  writer.wait();
  const auto found = diff_checkpoints(step_path(b, 3), step_path(scratch.root() / "c", 3));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].elements, 1);
  EXPECT_EQ(found[0].first, at);
  EXPECT_NE(found[0].what.find("[600, 5]"), std::string::npos) << found[0].what;
}

}  // namespace smlp::test
