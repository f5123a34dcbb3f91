// Tables of hash routing in files.
#include <gtest/gtest.h>

#include "data/hash_table_file.h"
#include "tests/data/scratch.h"

namespace smlp {
namespace {

using namespace test;

TEST(HashTableFile, IsReadAndWhatIsNoTableIsRefusedInASentence) {
  const Scratch scratch;
  const std::string path = scratch / "table";
  write_file(path, "2 0\n1\t0\r\n");
  EXPECT_EQ(read_hash_table(path, 4, 3), (std::vector<std::int32_t>{2, 0, 1, 0}));
  for (const auto& [text, part] : std::vector<std::pair<std::string, std::string>>{
           {"2 0 1", "holds 3 entries"},
           {"2 0 1 0 1", "more entries"},
           {"2 0 3 0", "entry 2 is \"3\""},
           {"2 -1 1 0", "entry 1 is \"-1\""},
           {"2 0x1 1 0", "\"0x1\""},
           {"2 99999999999999 1 0", "entry 1"},
           {"", "0 entries"}}) {
    write_file(path, text);
    const auto told = refusal(ExitCode::configuration, [&] { read_hash_table(path, 4, 3); });
    EXPECT_TRUE(contains(told, part)) << text << " gave: " << told;
  }
}

TEST(HashTableFile, ThatIsAFolderOrNotThereIsRefusedByItsKeyAndNotTriedAgain) {
  const Scratch scratch;
  for (const auto& [where, part] : std::vector<std::pair<std::string, std::string>>{
           {testing::TempDir(), "a folder"}, {"/dev/zero", "a device"}, {scratch / "absent", "no such file"}, {"", "no such file"}}) {
    const auto told = refusal(ExitCode::configuration, [&] { read_hash_table(where, 4, 3); });
    EXPECT_TRUE(contains(told, part)) << told;
    EXPECT_TRUE(contains(told, "routing.hash_table")) << told;
  }
}

// A disk that failed for a moment once made a missing file of it, which ends a run for good. A link to itself can't be looked at
// either.
TEST(HashTableFile, ThatCantBeLookedAtIsTriedAgain) {
  const Scratch scratch;
  std::filesystem::create_symlink("table", scratch / "table");
  const auto told = refusal(ExitCode::io_failed, [&] { read_hash_table(scratch / "table", 4, 3); });
  EXPECT_TRUE(contains(told, "looking at " + (scratch / "table"))) << told;
}

}  // namespace
}  // namespace smlp
