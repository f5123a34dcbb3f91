// One writer at a time for an output, and what is left of those that were killed.
#include "data/output_lock.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "core/host_name.h"
#include "data/bpe_trainer.h"
#include "data/prepare.h"
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
    const OutputLock of_another("out/t", lock_of(scratch / "out/t"));
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
    const OutputLock of_another("bpe", lock_of(scratch / "bpe/tokenizer"));
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
    { const OutputLock lock("t", lock_of(scratch / "t")); }
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
          const OutputLock lock("t", lock_of(scratch / "t"));
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

}  // namespace
}  // namespace smlp::test
