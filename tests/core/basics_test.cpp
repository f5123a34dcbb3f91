// Errors, files, locks, clocks and counter-based random numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

#include "core/clock.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/files.h"
#include "core/numbers.h"
#include "core/quantities.h"
#include "core/random.h"
#include "core/run_directory.h"
#include "core/statistics.h"
#include "core/utf8.h"
#include "tests/failing_readdir.h"

namespace smlp {
namespace {

using testing::HasSubstr;

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-core-XXXXXX";
    path = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

TEST(Digest, IsXxh3Of128BitsAsItsToolPrintsIt) {
  EXPECT_EQ(digest_of(std::string()), "99aa06d3014798d86001c324468d497f");
  std::string text;
  Digest pieces;
  for (int i = 0; i < 3000; ++i) {
    const std::string word(static_cast<std::size_t>(i % 7), static_cast<char>(i));
    text += word;
    pieces.update(std::as_bytes(std::span(word)));
  }
  EXPECT_EQ(pieces.hex(), digest_of(text));
  text.back() ^= 1;
  EXPECT_NE(pieces.hex(), digest_of(text));
}

TEST(NearestName, SuggestsTheClosestAndNothingFarAway) {
  const std::vector<std::string> known = {"context", "width", "hidden"};
  EXPECT_EQ(nearest_name("contxt", known), "context");
  EXPECT_EQ(nearest_name("wdith", known), "width");
  EXPECT_EQ(nearest_name("zzzzzzzzz", known), "");
}

TEST(WholeNumbers, AreDigitsThatSixtyFourBitsHold) {
  EXPECT_EQ(parse_whole_number("0"), 0);
  EXPECT_EQ(parse_whole_number("0042"), 42);
  EXPECT_EQ(parse_whole_number("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
  for (const char* text : {"", "-", "-0", "-3", "+3", " 3", "3 ", "3.0", "0x3", "3e2", "9223372036854775808", "x"}) {
    EXPECT_EQ(parse_whole_number(text), std::nullopt) << text;
  }
}

TEST(WholeNumbers, AreTakenFromTheFrontOfAText) {
  std::string_view text = "17-3";
  EXPECT_EQ(take_whole_number(text), 17);
  EXPECT_EQ(text, "-3");
  EXPECT_EQ(take_whole_number(text), std::nullopt);
  EXPECT_EQ(text, "-3");
}

TEST(EditDistance, CountsInsertionsDeletionsAndReplacements) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("same", "same"), 0u);
  EXPECT_EQ(edit_distance("EXPERTS", "experts"), 0u) << "model.EXPERTS was once answered with model.kind";
}

TEST(Expect, NamesThePlaceOfABrokenPromise) {
  try {
    expect(false, "two is more than one");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::fault);
    EXPECT_THAT(error.what(), HasSubstr("two is more than one"));
    EXPECT_THAT(error.what(), HasSubstr("basics_test.cpp"));
  }
}

TEST(Expect, PutsASentenceTogetherOnlyForABrokenPromise) {
  int made = 0;
  const auto sentence = [&] { return "sentence " + std::to_string(++made); };
  expect(true, sentence);
  EXPECT_EQ(made, 0);
  try {
    expect(false, sentence);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("sentence 1 ("));
    EXPECT_THAT(error.what(), HasSubstr("basics_test.cpp"));
  }
}

TEST_F(Folder, WritingReplacesTheWholeFile) {
  const auto file = path / "a";
  write_durably(file, "a long first text");
  write_durably(file, "short");
  EXPECT_EQ(read_text(file), "short");
  write_atomically(file, "again");
  EXPECT_EQ(read_text(file), "again");
  append_line(file, "more");
  EXPECT_EQ(read_text(file), "again\nmore\n") << "a line cut off by a death swallowed the next";
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path), {}), 1) << "a temporary file was left";
}

// A run could not be handed over within a group, whatever the umask.
TEST_F(Folder, WhoMayWriteAFileIsTheUmasksToSay) {
  const auto may = [](const std::filesystem::path& file) { return std::filesystem::status(file).permissions(); };
  using std::filesystem::perms;
  const auto before = umask(002);
  write_durably(path / "a", "text");
  append_line(path / "b", "text");
  FileLock::try_lock(path / "c", FileLock::Kind::exclusive);
  umask(before);
  for (const char* name : {"a", "b", "c"}) EXPECT_NE(may(path / name) & perms::group_write, perms::none) << name;
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(may(path / name) & perms::others_write, perms::none) << name;
}

TEST_F(Folder, AMissingFileIsAConfigurationErrorThatNamesIt) {
  try {
    read_text(path / "absent");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    EXPECT_THAT(error.what(), HasSubstr((path / "absent").string()));
  }
}

// `smlp config check job.toml/` ended as if the disk had failed, with 74.
TEST_F(Folder, APathThatGoesOnBehindAFileIsAConfigurationErrorThatNamesIt) {
  write_atomically(path / "job.toml", "");
  for (const auto& wrong : {(path / "job.toml").string() + "/", (path / "job.toml/x").string(), std::string(5000, 'x')}) {
    try {
      read_text(wrong);
      ADD_FAILURE() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::configuration);
      EXPECT_THAT(error.what(), HasSubstr("there is no file " + wrong));
    }
  }
}

TEST_F(Folder, AFolderInThePlaceOfAFileIsAConfigurationErrorThatNamesIt) {
  try {
    read_text(path);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration) << "trying again does not help";
    EXPECT_THAT(error.what(), HasSubstr(path.string() + " is a folder"));
  }
}

// It came as std::ios_base::failure, without the file's name.
TEST_F(Folder, AReadErrorNamesTheFile) {
  try {
    read_text("/proc/self/mem");  // opens, is a plain file, and has nothing at its beginning
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io_failed);
    EXPECT_THAT(error.what(), HasSubstr("reading /proc/self/mem failed: Input/output error"));
  }
  EXPECT_EQ(read_if_there("/proc/self/mem"), "");
}

// Data that a run had left out counted as never left out, and a fence as never raised, where their files could not be read.
TEST_F(Folder, OnlyAnAbsentFileIsNone) {
  EXPECT_EQ(read_unless_absent(path / "absent"), std::nullopt);
  write_atomically(path / "empty", "");
  EXPECT_EQ(read_unless_absent(path / "empty"), "");
  std::filesystem::create_symlink("loop", path / "loop");
  EXPECT_THROW(read_unless_absent(path / "loop"), Error);
  EXPECT_THROW(read_unless_absent(path), Error);
  EXPECT_EQ(attempt_in_charge(path), 0);
  std::filesystem::create_symlink(fence_name, path / fence_name);
  EXPECT_THROW(attempt_in_charge(path), Error);
}

TEST_F(Folder, TextsOfAnyLengthAreReadWhole) {
  for (const std::size_t length : {0, 1, 4095, 4096, 4097, (1 << 20) - 1, (1 << 20) + 4096, (3 << 20) + 1}) {
    std::string text(length, 'x');
    for (std::size_t i = 0; i < length; i += 1000) text[i] = static_cast<char>('a' + i / 1000 % 26);
    write_atomically(path / "text", text);
    EXPECT_TRUE(read_text(path / "text") == text) << length;
  }
  EXPECT_THAT(read_text("/proc/self/status"), HasSubstr("Threads:"));  // a plain file of size 0
}

// The loops of the launcher threw from the iterator's ++, where nobody expected it, and ended a run.
TEST_F(Folder, WhatComesBeforeAnEntryThatCannotBeReadIsListed) {
  for (const char* name : {"c", "a", "b"}) write_atomically(path / name, "");
  std::error_code failed;
  EXPECT_THAT(entries_of(path, failed), testing::ElementsAre(path / "a", path / "b", path / "c"));
  EXPECT_FALSE(failed);
  {
    const auto disk = test::ChangedReaddir::failing_after(3);
    EXPECT_LT(entries_of(path, failed).size(), 3U);
    EXPECT_EQ(failed.value(), ESTALE);
  }
  {
    const auto disk = test::ChangedReaddir::failing_after(0);
    EXPECT_NO_THROW(EXPECT_THAT(entries_of(path), testing::IsEmpty()));
  }
  EXPECT_THAT(entries_of(path / "absent", failed), testing::IsEmpty());
  EXPECT_FALSE(failed) << "an absent folder holds nothing";
  EXPECT_THAT(entries_of(path / "a", failed), testing::IsEmpty());
  EXPECT_TRUE(failed) << "a file is no folder";
}

// On disks that can't flush folders a checkpoint was published, but no other file of the run could be written.
TEST(Files, ADiskThatCannotFlushFoldersIsNoError) { EXPECT_NO_THROW(flush_folder("/proc")); }

// A full disk kept the half of a tokenizer that it had room for, under a name that nobody removes.
TEST_F(Folder, WritingThatFailsLeavesNoTemporaryFile) {
  const auto file = path / "taken";
  std::filesystem::create_directories(file / "full");  // no file can be renamed over it
  EXPECT_THROW(write_durably(file, "text"), Error);
  EXPECT_THROW(write_atomically(file, "text"), Error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path), {}), 1);
}

// Once ended a supervisor: a process that died between open and read of its /proc file. A folder opens and can't be
// read either.
TEST_F(Folder, AFileThatCanBeOpenedButNotReadIsAsGoodAsGone) {
  EXPECT_EQ(read_if_there(path), "");
  EXPECT_EQ(read_if_there(path / "nothing"), "");
  write_atomically(path / "some", "text");
  EXPECT_EQ(read_if_there(path / "some"), "text");
}

TEST_F(Folder, AnExclusiveLockKeepsOthersOutUntilItsHolderDies) {
  const auto file = path / "lock";
  std::array<int, 2> ready{};
  ASSERT_EQ(pipe(ready.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = FileLock::try_lock(file, FileLock::Kind::exclusive);
    [[maybe_unused]] const auto told = write(ready[1], lock.held() ? "y" : "n", 1);
    pause();
    _exit(0);
  }
  char held = 0;
  ASSERT_EQ(read(ready[0], &held, 1), 1);
  EXPECT_EQ(held, 'y');
  EXPECT_FALSE(FileLock::try_lock(file, FileLock::Kind::exclusive).held());
  EXPECT_FALSE(FileLock::try_lock(file, FileLock::Kind::shared).held());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(FileLock::try_lock(file, FileLock::Kind::exclusive).held());
}

TEST_F(Folder, SharedLocksStandBesideEachOther) {
  const auto first = FileLock::try_lock(path / "lock", FileLock::Kind::shared);
  EXPECT_TRUE(first.held());
  EXPECT_TRUE(FileLock::try_lock(path / "lock", FileLock::Kind::shared).held());
  EXPECT_FALSE(FileLock::try_lock(path / "lock", FileLock::Kind::exclusive).held());
}

TEST(Clock, TellsDurationsToPeople) {
  EXPECT_EQ(duration_text(42.4), "0:42");
  EXPECT_EQ(duration_text(3909), "1:05:09");
  EXPECT_EQ(duration_text(76 * 3600 * 24 + 4 * 3600), "76 d 4 h");
  EXPECT_EQ(duration_text(std::nan("")), "?");
  EXPECT_EQ(duration_text(INFINITY), "?");
}

TEST(Clock, WritesTheTimeAsOthersParseIt) {
  EXPECT_THAT(utc_time(), testing::MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"));
  const double before = monotonic_seconds();
  EXPECT_GE(monotonic_seconds(), before);
}

TEST(UpperMedian, IsTheMiddleOrTheUpperOfTwo) {
  EXPECT_EQ(upper_median({7}), 7);
  EXPECT_EQ(upper_median({3, 1, 2}), 2);
  EXPECT_EQ(upper_median({4, 1, 3, 2}), 3);
  EXPECT_THROW(upper_median({}), Error);
}

TEST(Median, IsTheMiddleOrTheMeanOfTwo) {
  EXPECT_EQ(median({7}), 7);
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, -1, 3, 2}), 2.5);
  EXPECT_THROW(median({}), Error);
}

// Of a run that diverged it had 92 digits.
TEST(Quantities, AHugePerplexityIsShort) {
  EXPECT_EQ(perplexity_text(17.254), "17.25");
  EXPECT_EQ(perplexity_text(999999), "999999.00");
  EXPECT_EQ(perplexity_text(1e6), "1.00e+06");
  EXPECT_EQ(perplexity_text(3.214e92), "3.21e+92");
  EXPECT_EQ(perplexity_text(HUGE_VAL), "inf");
}

TEST(Quantities, AreShort) {
  EXPECT_EQ(size_text(17), "17 B");
  EXPECT_EQ(size_text(1536), "1.5 KiB");
  EXPECT_EQ(size_text(std::int64_t{3} << 30, 2), "3.00 GiB");
  EXPECT_EQ(size_text(std::int64_t{1} << 60), "1048576.0 TiB");
  EXPECT_EQ(count_text(812.4), "812");
  EXPECT_EQ(count_text(12345), "12.3k");
  EXPECT_EQ(count_text(3e6), "3.00M");
  EXPECT_EQ(count_text(1.25e9), "1.25B");
}

TEST(Utf8, ACharacterIsWholeAndInItsShortestForm) {
  EXPECT_EQ(character_bytes("a"), 1u);
  EXPECT_EQ(character_bytes("äx"), 2u);
  EXPECT_EQ(character_bytes("…"), 3u);
  EXPECT_EQ(character_bytes("\xf0\x9f\x98\x80"), 4u);
  for (const char* none : {"", "\x80", "\xc3", "\xc0\xaf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x80", "\xf0\x8f\xbf\xbf",
                           "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3x"}) {
    EXPECT_EQ(character_bytes(none), 0u) << none;
  }
}

// Cut after so many bytes, half a character stood in sentences and on terminals.
TEST(Utf8, TextIsCutBetweenCharacters) {
  EXPECT_EQ(shortened("äöü", 6), "äöü");
  EXPECT_EQ(shortened("äöü", 5), "äö…");
  EXPECT_EQ(shortened("äöü", 4), "äö…");
  EXPECT_EQ(shortened("äöü", 3), "ä…");
  EXPECT_EQ(shortened("abc", 2), "ab…");
  EXPECT_EQ(shortened("abc", 0), "…");
  EXPECT_EQ(shortened(std::string(9, '\x80'), 6), std::string(6, '\x80') + "…") << "no UTF-8: cut all the same";
}

// Known answers of Philox4x32-10 (the Random123 distribution's kat_vectors).

TEST(Philox, GivesThePublishedNumbers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const auto ones = ~std::uint64_t{0};
  EXPECT_EQ(philox(ones, ones, ones), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, IsAFunctionOfSeedNameAndIndex) {
  const RandomStream a(1, "x"), same(1, "x"), other_name(1, "y"), other_seed(2, "x");
  EXPECT_EQ(a.bits(7), same.bits(7));
  EXPECT_NE(a.bits(7), a.bits(8));
  EXPECT_NE(a.bits(7), other_name.bits(7));
  EXPECT_NE(a.bits(7), other_seed.bits(7));
}

TEST(RandomStream, HasTheMomentsItPromises) {
  const RandomStream stream(5, "moments");
  constexpr int n = 100000;
  double uniform = 0, normal = 0, squares = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const double u = stream.uniform(i), z = stream.normal(i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    uniform += u / n;
    normal += z / n;
    squares += z * z / n;
  }
  EXPECT_NEAR(uniform, 0.5, 0.004);
  EXPECT_NEAR(normal, 0, 0.013);
  EXPECT_NEAR(squares, 1, 0.02);
}

TEST(Permute, IsABijectionOfEverySize) {
  for (const std::uint64_t size : {1, 2, 3, 7, 64, 1000}) {
    std::vector<bool> seen(size);
    for (std::uint64_t i = 0; i < size; ++i) {
      const auto place = permute(i, size, 42);
      ASSERT_LT(place, size);
      ASSERT_FALSE(seen[place]);
      seen[place] = true;
    }
  }
  int moved = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) moved += permute(i, 1000, 1) != permute(i, 1000, 2);
  EXPECT_GT(moved, 900);
}

// A run that goes on must read on in the order that it began with, whatever version of smlp it began with.
TEST(Permute, IsTheSameInEveryVersion) {
  std::vector<std::uint64_t> places;
  for (std::uint64_t i = 0; i < 12; ++i) places.push_back(permute(i, 1000, 42));
  EXPECT_EQ(places, (std::vector<std::uint64_t>{212, 835, 397, 310, 583, 258, 542, 905, 218, 197, 99, 590}));
  double product = 0, neighbours = 0;  // of deviations from the middle: 1 / 12 of the square of the size where they go together
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const auto from_middle = [](std::uint64_t place) { return static_cast<double>(place) - 499.5; };
    product += from_middle(i) * from_middle(permute(i, 1000, 42)) / 1000;
    neighbours += from_middle(permute(i, 1000, 42)) * from_middle(permute((i + 1) % 1000, 1000, 42)) / 1000;
  }
  EXPECT_LT(std::abs(product), 0.1 * 1e6 / 12);
  EXPECT_LT(std::abs(neighbours), 0.1 * 1e6 / 12);
}

}  // namespace
}  // namespace smlp
