// What the launcher makes of a disk that fails for a moment: it goes on by what it knew.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/files.h"
#include "launcher/run_history.h"
#include "tests/failing_readdir.h"
#include "tests/scratch.h"

namespace smlp {
namespace {

using testing::ElementsAre;

class FailingDisk : public testing::Test {
 protected:
  FailingDisk() { std::filesystem::create_directories(run.log_folder(1)); }
  test::Scratch scratch;
  RunDirectory run{scratch.root()};
};

// It ended the launcher, in the middle of a run; and a list that was cut short sent a diverged run to its beginning.
TEST_F(FailingDisk, ADiskThatCannotListCheckpointsForAMomentHidesNone) {
  for (const std::int64_t step : {10, 20}) {
    std::filesystem::create_directories(run.checkpoint(step));
    write_atomically(run.manifest(step), "{}");
  }
  RunHistory history(run);
  EXPECT_THAT(history.published_steps(), ElementsAre(10, 20));
  for (const int entries : {0, 3}) {
    const auto disk = test::ChangedReaddir::failing_after(entries);
    EXPECT_NO_THROW(EXPECT_THAT(history.published_steps(), ElementsAre(10, 20)));
    EXPECT_NO_THROW(history.bytes_of_newest());
  }
  std::filesystem::remove_all(run.checkpoint(20));
  EXPECT_THAT(history.published_steps(), ElementsAre(10));
}

TEST_F(FailingDisk, CountsAttemptsByItselfWhereTheFenceCannotBeRead) {
  std::filesystem::create_directories(run.checkpoints());
  std::filesystem::create_symlink(fence_name, run.checkpoints() / fence_name);
  EXPECT_EQ(RunHistory(run).begin_attempt(), 2);
}

}  // namespace
}  // namespace smlp
