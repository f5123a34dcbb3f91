#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>

#include "checkpoint/reader.h"
#include "core/error.h"
#include "tests/checkpoint/sample.h"

namespace smlp::test {

namespace fs = std::filesystem;

TEST(Reshard, ComesBackOnAnyNumberOfRanks) {
  for (const int writers : {1, 2, 3, 4, 5, 8}) {
    const Scratch scratch;
    const auto saved = save(options_for(scratch.root(), writers), 7);
    ASSERT_TRUE(saved.published) << saved.failure;
    const auto path = step_path(scratch.root(), 7);
    ASSERT_EQ(verify_checkpoint(path).reason, "");
    for (const int readers : {1, 2, 3, 4, 5, 7, 8}) {
      EXPECT_EQ(load_fault(path, readers, 7), "") << writers << " to " << readers;
    }
  }
}

// Four ranks write; two load what they wrote and write it again; then eight, then one.
TEST(Reshard, FourToTwoToEightToOneKeepsEveryDigest) {
  const Scratch scratch;
  ASSERT_TRUE(save(options_for(scratch.root() / "4", 4), 3).published);
  auto path = step_path(scratch.root() / "4", 3);
  const auto digests = digest_tensors(path);
  EXPECT_EQ(digests.size(), sample_tensors().size());
  for (const int ranks : {2, 8, 1}) {
    auto options = options_for(scratch.root() / std::to_string(ranks), ranks);
    std::vector<std::unique_ptr<CheckpointWriter>> writers;
    for (options.rank = 0; options.rank < ranks; ++options.rank) {
      SampleRank memory(options.rank, ranks);
      memory.wipe();
      load_alone(path, memory);
      writers.push_back(std::make_unique<CheckpointWriter>(options));
      writers.back()->begin(memory.backend(), memory.pieces(), read_run_state(path));
    }
    for (auto& writer : writers) {
      writer->wait();
      ASSERT_EQ(writer->state(), CheckpointWriter::State::written) << writer->failure();
    }
    writers[0]->publish();
    writers[0]->wait();
    ASSERT_EQ(writers[0]->state(), CheckpointWriter::State::published) << writers[0]->failure();
    const auto next = step_path(options.root, 3);
    EXPECT_EQ(digest_tensors(next), digests) << ranks;
    EXPECT_EQ(digest_all(digest_tensors(next)), digest_all(digests));
    EXPECT_TRUE(diff_checkpoints(path, next).empty()) << ranks;
    path = next;
  }
}

// The usual limit is 1024 files a process; a cluster has more ranks than that.
TEST(Load, FewFilesAreOpenHoweverManyRanksWrote) {
  const Scratch scratch;
  constexpr int ranks = 80;
  const std::vector<SampleTensor> tensors = {{"flat", {ranks}, DType::f32, Spread::flat}};
  ASSERT_TRUE(save(options_for(scratch.root(), ranks), 5, tensors).published);
  const auto open_files = [] {
    const fs::directory_iterator files("/proc/self/fd");
    return std::distance(fs::begin(files), fs::end(files));
  };
  const auto before = open_files();
  CheckpointReader reader(step_path(scratch.root(), 5));
  std::int64_t elements = 0;
  const auto most = before + 70;
  reader.read(reader.tensor("flat"), 0, ranks, [&](std::int64_t, std::span<const std::byte> bytes) {
    elements += std::ssize(bytes) / 4;
    EXPECT_LT(open_files(), most);
  });
  EXPECT_EQ(elements, ranks);
}

TEST(Load, TheDigestOfAllDependsOnWhichTensorIsWhich) {
  EXPECT_NE(digest_all({{"a", "00"}, {"b", "11"}}), digest_all({{"a", "11"}, {"b", "00"}}));
  EXPECT_NE(digest_all({{"a", "00"}}), digest_all({{"b", "00"}}));
}

TEST(Load, WholeTensorsWithoutALayout) {
  const Scratch scratch;
  ASSERT_TRUE(save(options_for(scratch.root(), 3), 5).published);
  const auto path = step_path(scratch.root(), 5);
  const auto listed = list_tensors(path);
  ASSERT_EQ(listed.size(), sample_tensors().size());
  for (const auto& tensor : sample_tensors()) {
    EXPECT_EQ(read_tensor(path, tensor.name), sample_bytes(tensor, 5)) << tensor.name;
  }
  try {
    read_tensor(path, "blocks.0.norm.wieght");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the nearest name is blocks.0.norm.weight"), std::string::npos)
        << error.what();
  }
}

std::string load_complaint(const fs::path& path, SampleRank& memory, bool weights_only = false) {
  try {
    load_alone(path, memory, weights_only);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    return error.what();
  }
  return "";
}

TEST(Load, RefusesAnotherModel) {
  const Scratch scratch;
  ASSERT_TRUE(save(options_for(scratch.root(), 2), 5).published);
  const auto path = step_path(scratch.root(), 5);
  const auto complaint = [&](auto change) {
    auto tensors = sample_tensors();
    change(tensors);
    SampleRank memory(0, 1, tensors);
    return load_complaint(path, memory);
  };
  EXPECT_EQ(complaint([](auto&) {}), "");
  EXPECT_NE(complaint([](auto& t) {
              t[0].shape = {5, 37};
            }).find("embedding.weight is f32 [37, 5] there, f32 [5, 37]"),
            std::string::npos);
  EXPECT_NE(
      complaint([](auto& t) { t[0].dtype = DType::i32; }).find("embedding.weight is f32 [37, 5] there, i32"),
      std::string::npos);
  EXPECT_NE(complaint([](auto& t) {
              t.push_back({"head.bias", {3}, DType::f32, Spread::replicated});
            }).find("holds no tensor head.bias"),
            std::string::npos);
  EXPECT_NE(complaint([](auto& t) {
              t.erase(t.begin());
            }).find("holds tensor embedding.weight, which this run's model"),
            std::string::npos);
}

TEST(Load, WeightsAloneLeaveTheRestUntouched) {
  const Scratch scratch;
  ASSERT_TRUE(save(options_for(scratch.root(), 2), 5).published);
  const auto path = step_path(scratch.root(), 5);
  SampleRank memory(0, 1);
  memory.fill(6);
  load_alone(path, memory, true);
  const auto wrong = memory.wrong(5);
  for (const auto& tensor : sample_tensors()) {
    if (tensor.shape.size() == 0) continue;
    const bool is_weight = tensor.name.find('/') == std::string::npos;
    EXPECT_EQ(std::ranges::count(wrong, tensor.name), is_weight ? 0 : 1) << tensor.name;
  }

  auto weights = sample_tensors();
  std::erase_if(weights, [](const SampleTensor& t) { return t.name.find('/') != std::string::npos; });
  SampleRank model(0, 1, weights);
  EXPECT_NE(load_complaint(path, model), "");
  EXPECT_EQ(load_complaint(path, model, true), "");
  EXPECT_TRUE(model.wrong(5).empty());
}

}  // namespace smlp::test
