#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <random>
#include <stdexcept>
#include <thread>

#include "checkpoint/manifest.h"
#include "core/digest.h"
#include "core/error.h"
#include "tests/checkpoint/child.h"
#include "tests/checkpoint/newer_format.h"
#include "tests/checkpoint/sample.h"
#include "tests/failing_readdir.h"
#include "tests/without_rights.h"

namespace smlp::test {

namespace fs = std::filesystem;

class Damage : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(save(options_for(root(), 2), 10).published);
    ASSERT_TRUE(save(options_for(root(), 2), 20).published);
    ASSERT_EQ(find_checkpoint(root()), newest());
  }
  const fs::path& root() const { return scratch_.root(); }
  fs::path newest() const { return step_path(root(), 20); }
  fs::path older() const { return step_path(root(), 10); }

  // The newest is refused for `reason`, by everything that reads it, and the one before it is found.
  void expect_rejected(const std::string& reason) {
    const auto verdict = verify_checkpoint(newest());
    EXPECT_FALSE(verdict.valid);
    EXPECT_NE(verdict.reason.find(reason), std::string::npos) << verdict.reason;
    std::vector<CheckpointInfo> rejected;
    EXPECT_EQ(find_checkpoint(root(), &rejected), older());
    ASSERT_EQ(rejected.size(), 1u);
    EXPECT_EQ(rejected[0].reason, verdict.reason);
    EXPECT_EQ(rejected[0].step, 20);
    const auto listed = list_checkpoints(root(), true);
    ASSERT_EQ(listed.size(), 2u);
    EXPECT_TRUE(listed[0].valid) << listed[0].reason;
    EXPECT_EQ(listed[1].reason, verdict.reason);
  }

 private:
  Scratch scratch_;
};

TEST_F(Damage, AFlippedBitAnywhereInAnyFileIsFound) {
  std::mt19937_64 random(1);
  for (const auto& name : names_in(newest())) {
    const auto file = newest() / name;
    const auto bits = static_cast<std::int64_t>(fs::file_size(file)) * 8;
    std::vector<std::int64_t> places = {0, 7, bits - 1, bits - 8};
    for (int i = 0; i < 200; ++i)
      places.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bits)));
    for (const auto bit : places) {
      flip_bit(file, bit);
      const auto verdict = verify_checkpoint(newest());
      EXPECT_FALSE(verdict.valid) << name << ", bit " << bit;
      EXPECT_NE(verdict.reason.find(name), std::string::npos) << verdict.reason;
      flip_bit(file, bit);
    }
    ASSERT_TRUE(verify_checkpoint(newest()).valid) << name;
  }
}

TEST_F(Damage, EveryPartOfASharedVerificationAnswersForItsShards) {
  flip_bit(newest() / "rank-0001.h5", 8 * 300);
  for (const int parts : {1, 2, 3, 5}) {
    for (int part = 0; part < parts; ++part) {
      EXPECT_EQ(verify_shards(newest(), part, parts).empty(), part != 1 % parts) << part << " of " << parts;
    }
  }
  flip_bit(newest() / "rank-0001.h5", 8 * 300);
  flip_bit(newest() / "whole.h5", 8 * 300);
  for (int part = 0; part < 3; ++part) EXPECT_EQ(verify_shards(newest(), part, 3).empty(), part != 2) << part;
}

TEST_F(Damage, AFlippedBitOfATensorNamesItAndItsFile) {
  const auto manifest = read_manifest(newest());
  const auto& piece = manifest.shards[1].pieces.at(2);
  flip_bit(newest() / "rank-0001.h5", piece.position * 8 + 5);
  expect_rejected("rank-0001.h5: the bytes of " + piece.tensor + ",");
  EXPECT_THROW(read_tensor(newest(), piece.tensor), Error);
  EXPECT_THROW(digest_tensors(newest()), Error);
  SampleRank memory(0, 1);
  EXPECT_THROW(load_alone(newest(), memory), Error);
}

TEST_F(Damage, AMissingShard) {
  fs::remove(newest() / "rank-0001.h5");
  EXPECT_FALSE(list_checkpoints(root(), false).back().valid);
  expect_rejected("rank-0001.h5 is missing");
  SampleRank memory(0, 1);
  EXPECT_THROW(load_alone(newest(), memory), Error);
  EXPECT_NE(verify_shards(newest(), 0, 2), "");
}

TEST_F(Damage, ATruncatedShard) {
  fs::resize_file(newest() / "rank-0000.h5", fs::file_size(newest() / "rank-0000.h5") - 1);
  EXPECT_FALSE(list_checkpoints(root(), false).back().valid);
  expect_rejected("the manifest says");
}

TEST_F(Damage, AGrownShard) {
  std::ofstream(newest() / "rank-0000.h5", std::ios::app) << "x";
  expect_rejected("the manifest says");
}

TEST_F(Damage, AMissingWhole) {
  fs::remove(newest() / "whole.h5");
  expect_rejected("whole.h5 is missing");
}

TEST_F(Damage, AMissingManifest) {
  fs::remove(newest() / "manifest.json");
  expect_rejected("manifest.json is missing");
}

TEST_F(Damage, AnEmptyManifest) {
  std::ofstream(newest() / "manifest.json", std::ios::trunc);
  expect_rejected("too short to be a manifest");
}

// `verify` and `ls` waited for a writer for ever, and so would a start have.
TEST_F(Damage, APipeInPlaceOfTheManifest) {
  fs::remove(newest() / "manifest.json");
  ASSERT_EQ(mkfifo((newest() / "manifest.json").c_str(), 0644), 0);
  expect_rejected("manifest.json is missing");
}

TEST_F(Damage, AFolderInPlaceOfTheManifest) {
  fs::remove(newest() / "manifest.json");
  fs::create_directory(newest() / "manifest.json");
  expect_rejected("manifest.json is missing");
}

// A folder that this user may not list looked like one without checkpoints: a run would have begun anew.
TEST_F(Damage, AFolderThatMayNotBeListedIsNotAnEmptyOne) {
  fs::permissions(root(), fs::perms::none);
  const auto listed = in_child([&](int) -> std::string {
    if (geteuid() == 0 && setuid(65534) != 0) throw std::runtime_error("root can't become anybody else");
    return fmt::format("{} checkpoints", list_checkpoints(root(), true).size());
  });
  fs::permissions(root(), fs::perms::owner_all);
  EXPECT_EQ(listed.said, fmt::format("exception: the checkpoints in {} can't be listed: Permission denied", root().string()));
}

// What came before the failure was taken for all: a run would have begun at an older checkpoint, or anew.
TEST_F(Damage, AFolderThatCannotBeReadToItsEndIsNotAShortOne) {
  const auto disk = ChangedReaddir::failing_after(3);
  try {
    list_checkpoints(root(), false);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io_failed);
    EXPECT_EQ(error.what(), fmt::format("the checkpoints in {} can't be listed: Stale file handle", root().string()));
  }
}

// A missing right, too few descriptors or a disk that fails for a moment looked like damage: sound checkpoints were set
// aside at a start, and deleted by later saves.
TEST_F(Damage, WhatCannotBeReadNowIsNotDamaged) {
  for (const char* name : {"manifest.json", "rank-0001.h5", "."}) {
    const auto shut = newest() / name;
    fs::permissions(root(), fs::perms::all);
    fs::permissions(shut, fs::perms::none);
    {
      const WithoutRights nobody;
      const auto info = verify_checkpoint(newest());
      EXPECT_TRUE(!info.valid && info.unreadable) << name << ": " << info.reason;
      EXPECT_NE(info.reason.find(name == std::string(".") ? newest().string() : shut.string()), std::string::npos) << info.reason;
      EXPECT_NE(info.reason.find("Permission denied"), std::string::npos) << info.reason;
      EXPECT_THROW(verify_shards(newest(), 1, 2), Error) << name;
      std::vector<CheckpointInfo> rejected;
      EXPECT_EQ(find_checkpoint(root(), &rejected), older());
      EXPECT_EQ(rejected.size(), 1u);
      try {
        if (name != std::string(".")) {
          find_checkpoint(newest());
          ADD_FAILURE() << name << ": it was taken";
        }
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::io_failed) << error.what();
      }
    }
    fs::permissions(shut, readable_by_all);
    EXPECT_TRUE(verify_checkpoint(newest()).valid);
  }
  const auto without_descriptors = in_child([&](int) -> std::string {
    const rlimit none{3, 4096};
    ::setrlimit(RLIMIT_NOFILE, &none);
    const auto info = verify_checkpoint(newest());
    return fmt::format("{} {}", info.unreadable ? "unreadable:" : "damaged:", info.reason);
  });
  EXPECT_EQ(without_descriptors.said, fmt::format("unreadable: opening {}/manifest.json failed: Too many open files; raise the "
                                                  "limit on open files (ulimit -n)", newest().string()));
}

TEST_F(Damage, WhatLiesThereInsteadIsDamage) {
  const auto shard = newest() / "rank-0001.h5";
  fs::remove(shard);
  EXPECT_FALSE(verify_checkpoint(newest()).unreadable) << "it is absent";
  fs::create_symlink("rank-0001.h5", shard);
  EXPECT_FALSE(verify_checkpoint(newest()).unreadable) << "a link to itself";
  fs::remove(shard);
  fs::create_directory(shard);
  EXPECT_FALSE(verify_checkpoint(newest()).unreadable) << "a folder";
  expect_rejected("rank-0001.h5 is missing");
}

TEST_F(Damage, AManifestOfANewerFormat) {
  make_newer_format(newest());
  expect_rejected("it is of format version 2; this program reads versions up to 1");
  EXPECT_EQ(inspect_checkpoint(newest()).newer_format, 2);
  EXPECT_FALSE(inspect_checkpoint(newest()).unreadable);
  flip_bit(newest() / "manifest.json", 8 * 200);
  EXPECT_EQ(inspect_checkpoint(newest()).newer_format, 0) << "what a damaged one says of itself counts for nothing";
}

TEST_F(Damage, ACopyUnderAnotherStepsName) {
  fs::remove_all(newest());
  fs::copy(older(), newest());
  EXPECT_TRUE(verify_checkpoint(newest()).valid);
  std::vector<CheckpointInfo> rejected;
  EXPECT_EQ(find_checkpoint(root(), &rejected), older());
  ASSERT_EQ(rejected.size(), 1u);
  EXPECT_NE(rejected[0].reason.find("it is the checkpoint of step 10 under another's name"),
            std::string::npos)
      << rejected[0].reason;
}

TEST_F(Damage, NothingValidIsSaidWithEveryReason) {
  fs::remove(newest() / "rank-0001.h5");
  fs::remove(older() / "manifest.json");
  try {
    find_checkpoint(root());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    const std::string text = error.what();
    EXPECT_NE(text.find("step-00000020: "), std::string::npos) << text;
    EXPECT_NE(text.find("step-00000010: "), std::string::npos) << text;
  }
}

TEST(Find, TakesARunItsFolderOrOneCheckpoint) {
  const Scratch scratch;
  const auto root = scratch.root() / "checkpoints";
  ASSERT_TRUE(save(options_for(root, 1), 10).published);
  ASSERT_TRUE(save(options_for(root, 1), 20).published);
  const auto newest = step_path(root, 20), older = step_path(root, 10);
  EXPECT_EQ(find_checkpoint(scratch.root()), newest);
  EXPECT_EQ(find_checkpoint(scratch.root().string() + "/"), newest);
  EXPECT_EQ(find_checkpoint(root), newest);
  EXPECT_EQ(find_checkpoint(older), older);
  EXPECT_EQ(find_checkpoint(older.string() + "/"), older);
  EXPECT_EQ(find_checkpoint(older / ".").filename(), older.filename()) << "what eval prints";
  const auto code_for = [](const fs::path& path) {
    try {
      find_checkpoint(path);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::done;
  };
  fs::create_directory(scratch.root() / "empty");
  EXPECT_EQ(code_for(scratch.root() / "empty"), ExitCode::configuration);
  EXPECT_EQ(code_for(scratch.root() / "absent"), ExitCode::configuration);
  fs::remove(older / "rank-0000.h5");
  EXPECT_EQ(code_for(older), ExitCode::bad_data);
  EXPECT_TRUE(list_checkpoints(scratch.root() / "absent", true).empty());
  EXPECT_NO_THROW(sweep_checkpoints(scratch.root() / "absent"));
}

// Each look began anew behind the last one's findings: the same checkpoint was named twice, and looking could go on for ever.
TEST_F(Damage, IsNamedOnceThoughAnotherCheckpointGoesMeanwhile) {
  flip_bit(newest() / "rank-0001.h5", 8 * 300);
  std::vector<CheckpointInfo> rejected;
  {
    const auto disk = ChangedReaddir::with_ghost("step-00000015", 3);
    EXPECT_EQ(find_checkpoint(root(), &rejected), older());
  }
  EXPECT_EQ(rejected.size(), 1u);
  const auto disk = ChangedReaddir::with_ghost("step-00000015", 1000000);
  try {
    find_checkpoint(root());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io_failed);
    EXPECT_NE(std::string(error.what()).find("go faster than they can be read"), std::string::npos) << error.what();
  }
}

// Of 25 looks at a live run, 18 met a checkpoint that its retention had just deleted, and called it damage.
TEST(Retention, WhoeverLooksMeanwhileFindsTheNewest) {
  const Scratch scratch;
  auto options = options_for(scratch.root(), 1);
  options.keep_last = 1;
  ASSERT_TRUE(save(options, 1, few_tensors()).published);
  std::atomic<bool> over = false;
  std::jthread run([&] {
    for (int step = 2; step <= 200; ++step) save(options, step, few_tensors());
    over = true;
  });
  while (!over) {
    std::vector<CheckpointInfo> rejected;
    try {
      find_checkpoint(scratch.root(), &rejected);
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
    EXPECT_TRUE(rejected.empty()) << rejected.front().reason;
    for (const auto& info : list_checkpoints(scratch.root(), false)) EXPECT_TRUE(info.valid) << info.reason;
  }
}

}  // namespace smlp::test
