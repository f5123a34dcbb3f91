// Processes as the kernel knows them: whose they are, and how children start.
#include "launcher/processes.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <csignal>
#include <string>
#include <vector>

#include "core/error.h"
#include "launcher/drill.h"

namespace smlp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A shell that does nothing, with words behind it; ended with this object.
class IdleProcess {
 public:
  explicit IdleProcess(const std::vector<std::string>& words) {
    ProcessStart start{.command = {"sh", "-c", "sleep 60; :", "sh"}, .environment = {"PATH=/usr/bin:/bin"}};
    start.command.insert(start.command.end(), words.begin(), words.end());
    pid = start_process(start);
  }
  ~IdleProcess() {
    kill(-pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  pid_t pid = 0;
};

// Once it was enough that the folder's name stood in the command line: what runs in runs/ab was taken for a rank of runs/a.
TEST(Processes, AreOfTheRunThatTheyWereStartedForAndOfNoneWhoseNameIsPartOfIt) {
  const IdleProcess rank({"--run-dir", "/runs/ab", "--attempt", "1"}), last({"--run-dir", "/runs/c"}), watcher({"/runs/ab"});
  EXPECT_TRUE(is_of_run(rank.pid, "/runs/ab"));
  EXPECT_TRUE(is_of_run(last.pid, "/runs/c"));
  for (const char* other : {"/runs/a", "/runs/abc", "runs/ab", "/runs/ab/", ""}) EXPECT_FALSE(is_of_run(rank.pid, other)) << other;
  EXPECT_FALSE(is_of_run(watcher.pid, "/runs/ab")) << "`smlp status /runs/ab`, say";
  EXPECT_THAT(processes_of_run({"/runs/ab"}), ElementsAre(testing::StartsWith(fmt::format("{}: sh -c sleep 60", rank.pid))));
  EXPECT_THAT(processes_of_run({"/runs/a"}), testing::IsEmpty());
}

// Once Ctrl-\ ended neither `smlp eval` nor its worker: the one ignores it while it waits for the other, which took that over.
TEST(StartProcess, ChildrenAreDeafToNoSignalThatWeIgnore) {
  signal(SIGQUIT, SIG_IGN);
  const pid_t child = start_process({.command = {"sh", "-c", "ulimit -c 0; kill -QUIT $$; exit 3"},
                                     .environment = {"PATH=/usr/bin:/bin"}});
  signal(SIGQUIT, SIG_DFL);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT) << status;
}

TEST(StartProcess, SaysWhatCantBeStarted) {
  try {
    start_process({.command = {"/nowhere/at-all"}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::unavailable);
    EXPECT_THAT(error.what(), HasSubstr("/nowhere/at-all"));
  }
}

}  // namespace
}  // namespace smlp
