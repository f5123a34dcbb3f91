// Temporary files that say whose they are, and what becomes of those whose owner was killed.
#include "core/leftovers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "core/error.h"
#include "core/host_name.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::HasSubstr;

pid_t process_that_ended() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t ended{};
  waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT);  // a zombie as yet
  return child;
}

// Hundreds of megabytes lay in the user's folder for good, and a job in /tmp for each command that was killed.
TEST(Leftovers, OfProcessesThatAreGoneAreSweptAndNoOthers) {
  std::string pattern = testing::TempDir() + "smlp-leftovers-XXXXXX";
  const std::filesystem::path folder = mkdtemp(pattern.data());
  const pid_t zombie = process_that_ended(), reaped = process_that_ended();
  waitpid(reaped, nullptr, 0);
  const auto gone = std::to_string(reaped), mine = "smlp-job-" + host_name() + ".";
  EXPECT_EQ(name_of_own("smlp-job-"), mine + std::to_string(getpid()));
  const std::set<std::string> stay = {name_of_own("smlp-job-") + ".abc", "smlp-job-" + host_name() + "2." + gone + ".abc",
                                      mine + "0.abc", mine + "-1.abc", mine + "1.abc", mine + gone, mine + "x" + gone + ".abc",
                                      mine + "99999999999.abc", "smlp-jobs-" + host_name() + "." + gone + ".abc"};
  for (const auto& name : stay) std::ofstream(folder / name) << "x";
  std::ofstream(folder / (mine + gone + ".abc")) << "x";
  std::ofstream(folder / (mine + std::to_string(zombie) + ".abc")) << "x";
  std::filesystem::create_directories(folder / (mine + gone + ".tmp") / "step-00000001");
  sweep_leftovers(folder, "smlp-job-");
  std::set<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) left.insert(entry.path().filename());
  EXPECT_EQ(left, stay);
  sweep_leftovers(folder / "absent", "smlp-job-");
  waitpid(zombie, nullptr, 0);
  std::filesystem::remove_all(folder);
}

// The sentence was ": No such file or directory".
TEST(Leftovers, AFolderForTemporaryFilesThatIsNotThereIsNamed) {
  setenv("TMPDIR", "/nonexistent", 1);
  try {
    temporary_folder("the job for a worker");
    ADD_FAILURE() << "it is not there";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("the job for a worker"), HasSubstr("TMPDIR = /nonexistent"), HasSubstr("set TMPDIR")));
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
  setenv("TMPDIR", "/var/..", 1);
  EXPECT_EQ(temporary_folder("a file"), "/var/..");
  unsetenv("TMPDIR");
}

}  // namespace
}  // namespace smlp
