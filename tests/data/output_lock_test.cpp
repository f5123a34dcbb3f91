// One writer at a time for an output, and what is left of those that were killed.
#include "data/output_lock.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <thread>

#include "core/host_name.h"
#include "data/bpe_trainer.h"
#include "data/prepare.h"
#include "data/text_reader.h"
#include "data/token_file.h"
#include "tests/data/scratch.h"

namespace smlp::test {
namespace {

std::string holder_here() { return fmt::format("is in use by process {} on {}", ::getpid(), host_name()); }

// Two at once to one prefix both ended with 0, and left the tokens of one beside the index of the other.
TEST(OutputLock, KeepsASecondPrepareAway) {
  const Scratch scratch;
  write_file(scratch / "in.txt", "some text");
  const auto prepare_to = [&](const std::string& output, const std::string& valid = "") {
    return prepare({.inputs = {scratch / "in.txt", scratch / "in.txt"},
                    .tokenizer = "bytes",
                    .output = output,
                    .valid_output = valid,
                    .valid_share = valid.empty() ? 0 : 0.5});
  };
  std::filesystem::create_directory(scratch / "out");
  {
    const OutputLock of_another("out/t", lock_of(scratch / "out/t"), {});
    const auto before = scratch.files();
    const auto sentence = refusal(ExitCode::call_again, [&] { prepare_to(scratch / "out/t"); });
    EXPECT_TRUE(contains(sentence, (scratch / "out/t") + " " + holder_here())) << sentence;
    refusal(ExitCode::call_again, [&] { prepare_to(scratch / "out/../out/t"); });
    refusal(ExitCode::call_again, [&] { prepare_to(scratch / "out/u", scratch / "out/t"); });
    EXPECT_EQ(scratch.files(), before) << "what is refused leaves nothing";
    prepare_to(scratch / "out/u");  // another prefix in that folder
    EXPECT_EQ(scratch.files(), before + 3);
  }
  prepare_to(scratch / "out/t");
  EXPECT_EQ(TokenFile(scratch / "out/t").documents(), 2);
  EXPECT_EQ(scratch.files(), 1 + 1 + 6) << "in.txt, the folder, two outputs of three files, no lock";
}

// The same race left merges.txt and vocab.json of different runs.
TEST(OutputLock, KeepsASecondTrainerAway) {
  const Scratch scratch;
  write_file(scratch / "in.txt", "some text, some text");
  const auto train = [&] {
    return train_tokenizer({.inputs = {scratch / "in.txt"}, .vocabulary = 260, .output = scratch / "bpe"});
  };
  {
    const OutputLock of_another("bpe", lock_of(scratch / "bpe/tokenizer"), {});
    const auto sentence = refusal(ExitCode::call_again, [&] { train(); });
    EXPECT_TRUE(contains(sentence, "bpe " + holder_here())) << sentence;
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "bpe")) << "made by the lock, and empty";
  EXPECT_EQ(train().vocabulary, 260);
  EXPECT_EQ(scratch.files(), 1 + 1 + 2);
}

TEST(OutputLock, OfAKilledProcessIsTakenOver) {
  const Scratch scratch;
  for (const char* words : {"", "{\"host\": \"elsewhere\", \"pid\": 17}\n"}) {
    write_file(scratch / ".t.smlp-lock", words);
    { const OutputLock lock("t", lock_of(scratch / "t"), {}); }
    EXPECT_FALSE(std::filesystem::exists(scratch / ".t.smlp-lock"));
  }
}

// Each removes its lock's file: who opened it before holds a file that nobody else can find.
TEST(OutputLock, HasOneHolderAlsoWhileItsFileComesAndGoes) {
  const Scratch scratch;
  std::atomic<int> inside = 0, taken = 0, together = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      while (taken < 2000) {
        try {
          const OutputLock lock("t", lock_of(scratch / "t"), {});
          together += ++inside > 1 ? 1 : 0;
          std::this_thread::yield();
          --inside;
          ++taken;
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ExitCode::call_again) << error.what();
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(together, 0);
  EXPECT_EQ(scratch.files(), 0);
}

// They were text to the next command that read the folder, and nobody ever removed them.
TEST(OutputLock, WhatKilledWritersLeftIsNoTextAndGoes) {
  const Scratch scratch;
  const std::vector<std::string> left = {"t.bin.17-0.tmp", "t.idx.17-1.tmp", "t.lengths.17-2.tmp", "t.json.17.tmp",
                                         ".t.smlp-lock"};
  const std::vector<std::string> of_others = {"u.bin.17-0.tmp", "t.bin.bin.17-0.tmp", "vocab.json.17.tmp", "merges.txt.17.tmp"};
  const std::vector<std::string> text = {"t.tmp", "t.bin.17.tmp", "t.json.17-0.tmp", "t.bin.x-0.tmp", "t.bin.17-.tmp",
                                         "t.txt.17.tmp",  ".tmp", "smlp-lock"};
  for (const auto& names : {left, of_others, text}) {
    for (const auto& name : names) write_file(scratch / ("in/" + name), "some text, some text");
  }
  EXPECT_EQ(find_text({scratch / "in"}).size(), text.size());
  EXPECT_EQ(find_text({scratch / "in/u.bin.17-0.tmp"}).size(), 1u) << "a file that is named itself is read";
  std::set<std::string> of_a_living_one;
  const auto look = [&](const PrepareProgress&) {
    for (const auto& entry : std::filesystem::directory_iterator(scratch / "out")) of_a_living_one.insert(entry.path());
  };
  prepare({.inputs = {scratch / "in"}, .tokenizer = "bytes", .output = scratch / "out/t", .progress = look});
  EXPECT_EQ(of_a_living_one.size(), 4u);
  for (const auto& name : of_a_living_one) EXPECT_TRUE(is_unfinished_output(name)) << name;
  const auto there = [&](const std::string& name) { return std::filesystem::exists(scratch / ("in/" + name)); };

  const auto result = prepare({.inputs = {scratch / "in"}, .tokenizer = "bytes", .output = scratch / "in/t"});
  EXPECT_EQ(result.train.documents, std::ssize(text));
  for (const auto& name : left) EXPECT_FALSE(there(name)) << name;
  for (const auto& name : of_others) EXPECT_TRUE(there(name)) << name << " may be another's, who lives";
  for (const auto& name : text) EXPECT_TRUE(there(name)) << name;

  train_tokenizer({.inputs = {scratch / "in"}, .vocabulary = 260, .output = scratch / "in"});
  EXPECT_FALSE(there("vocab.json.17.tmp"));
  EXPECT_FALSE(there("merges.txt.17.tmp"));
  EXPECT_TRUE(there("u.bin.17-0.tmp"));
}

// What another process removed between the reading of the folder and a look at the file ended it with 74.
TEST(OutputLock, AFolderIsReadWhileAnotherWritesThere) {
  const Scratch scratch;
  write_file(scratch / "in/a.txt", "some text");
  const std::jthread another([&](const std::stop_token& enough) {
    while (!enough.stop_requested()) {
      for (const char* name : {"in/t.bin.17-0.tmp", "in/t.json.17.tmp", "in/theirs.txt"}) write_file(scratch / name, "");
      for (const char* name : {"in/theirs.txt", "in/t.json.17.tmp", "in/t.bin.17-0.tmp"}) std::filesystem::remove(scratch / name);
    }
  });
  for (int i = 0; i < 3000; ++i) {
    const auto files = find_text({scratch / "in"});
    EXPECT_EQ(files.front().path, scratch / "in/a.txt");
  }
}

// Killed between its two renames, it left tokens without an index, which the next one read as text.
TEST(OutputLock, NewTokensNeverLieThereWithoutTheirIndex) {
  const Scratch scratch;
  write_file(scratch / "in.txt", "some text");
  const auto prepare_it = [&] { prepare({.inputs = {scratch / "in.txt"}, .tokenizer = "bytes", .output = scratch / "out/t"}); };
  prepare_it();
  std::filesystem::remove(scratch / "out/t.idx");
  std::filesystem::create_directories(scratch / "out/t.idx/full");  // nothing takes its place: the publishing ends there
  refusal(ExitCode::io_failed, prepare_it);
  EXPECT_FALSE(std::filesystem::exists(scratch / "out/t.bin"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "out/t.json"));
}

}  // namespace
}  // namespace smlp::test
