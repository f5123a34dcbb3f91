// What programs that only know HDF5 see: h5dump and h5ls on whole.h5 and on shards.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "tests/checkpoint/sample.h"

namespace smlp::test {

namespace fs = std::filesystem;

class Outsider : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("h5dump --version > /dev/null 2>&1 && h5ls --version > /dev/null 2>&1") != 0) {
      GTEST_SKIP() << "h5dump and h5ls (hdf5-tools) are not installed";
    }
  }

  static std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // From another directory, so that nothing is found by luck.
  std::string run(const std::string& command) const {
    const auto out = scratch.root() / "out.txt";
    EXPECT_EQ(std::system(fmt::format("cd / && {} > {} 2>&1", command, out.string()).c_str()), 0)
        << command << read(out);
    return read(out);
  }
  std::string dataset(const fs::path& file, const std::string& name) const {
    const auto out = scratch.root() / "data.bin";
    fs::remove(out);
    run(fmt::format("h5dump -d '/{}' -b FILE -o {} {}", name, out.string(), file.string()));
    return read(out);
  }

  Scratch scratch;
};

std::string as_text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(Outsider, SeesEveryTensorWhole) {
  ASSERT_TRUE(save(options_for(scratch.root() / "a", 3), 9).published);
  fs::rename(scratch.root() / "a", scratch.root() / "moved");  // shards are found beside whole.h5
  const auto path = step_path(scratch.root() / "moved", 9);
  for (const auto& tensor : sample_tensors()) {
    if (tensor.shape.size() == 0) continue;
    EXPECT_EQ(dataset(path / "whole.h5", tensor.name), as_text(sample_bytes(tensor, 9))) << tensor.name;
  }
}

TEST_F(Outsider, SeesShapesTypesAndTheRunState) {
  ASSERT_TRUE(save(options_for(scratch.root(), 2), 9).published);
  const auto path = step_path(scratch.root(), 9);
  const auto tree = run(fmt::format("h5ls -r {}", (path / "whole.h5").string()));
  for (const auto* line :
       {"/blocks.1.experts.in.weight Dataset {8, 3, 5}", "/embedding.weight", "Dataset {37, 5}",
        "/adam.m/embedding.weight", "/nothing                 Dataset {0, 4}"}) {
    EXPECT_NE(tree.find(line), std::string::npos) << line << "\n" << tree;
  }
  const auto head = run(fmt::format("h5dump -A {}", (path / "whole.h5").string()));
  for (const auto* text : {"\"integers.step\"", "\"integers.window\"", "\"integers.none\"",
                           "\"numbers.best\"", "\"texts.fingerprint\"", "0123456789abcdef", "H5T_IEEE_F64LE",
                           "\"bf16\"", "16-bit little-endian floating-point"}) {
    EXPECT_NE(head.find(text), std::string::npos) << text << "\n" << head;
  }
  const auto shard = run(fmt::format("h5dump -A {}", (path / "rank-0001.h5").string()));
  for (const auto* text : {"\"offset\"", "\"shape\"", "\"bf16\"", "blocks.1.experts.in.weight@60"}) {
    EXPECT_NE(shard.find(text), std::string::npos) << text << "\n" << shard;
  }
}

// This is why the loader never reads through whole.h5: HDF5 says nothing.
TEST_F(Outsider, SeesNaNWhereAShardIsMissingAndWeRefuse) {
  ASSERT_TRUE(save(options_for(scratch.root(), 2), 9).published);
  const auto path = step_path(scratch.root(), 9);
  fs::remove(path / "rank-0001.h5");
  const auto seen =
      run(fmt::format("h5dump -d /blocks.1.experts.in.weight {}", (path / "whole.h5").string()));
  EXPECT_NE(seen.find("nan, "), std::string::npos) << seen;
  EXPECT_THROW(read_tensor(path, "blocks.1.experts.in.weight"), Error);
}

}  // namespace smlp::test
