// Processes as the kernel knows them: whose they are, how children start, and what ranks are started with.
#include "launcher/processes.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "launcher/drill.h"
#include "launcher/mpi_launch.h"
#include "tests/descriptor_limit.h"

namespace smlp {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// A shell that does nothing, with words behind it; ended with this object. It stops itself: for a sleep it would fork, and until
// that has begun there are two of it.
class IdleProcess {
 public:
  explicit IdleProcess(const std::vector<std::string>& words) {
    ProcessStart start{.command = {"sh", "-c", "kill -STOP $$", "sh"}, .environment = {"PATH=/usr/bin:/bin"}};
    start.command.insert(start.command.end(), words.begin(), words.end());
    pid = start_process(start);
    // Linux closes what an exec closes a moment before it has the new words, of which there are none meanwhile.
    const double end = monotonic_seconds() + 10;
    while (read_text(fmt::format("/proc/{}/cmdline", pid)).empty() && monotonic_seconds() < end) std::this_thread::yield();
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
  EXPECT_THAT(processes_of_run({"/runs/ab"}), ElementsAre(testing::StartsWith(fmt::format("{}: sh -c kill -STOP", rank.pid))));
  EXPECT_THAT(processes_of_run({"/runs/a"}), testing::IsEmpty());
}

int status_of_program(const std::vector<std::string>& command) {
  const pid_t child = start_process({.command = command, .environment = {"PATH=/usr/bin:/bin"}});
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

// Once Ctrl-\ ended neither `smlp eval` nor its worker: the one ignores it while it waits for the other, which took that over.
TEST(StartProcess, ChildrenAreDeafToNoSignalThatWeIgnore) {
  signal(SIGQUIT, SIG_IGN);
  const int status = status_of_program({"sh", "-c", "ulimit -c 0; kill -QUIT $$; exit 3"});
  signal(SIGQUIT, SIG_DFL);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT) << status;
}

// Once what `nohup smlp eval` had started died at the hang-up that smlp itself was to survive.
TEST(StartProcess, ChildrenOutliveAHangUpThatWeWereToldToIgnore) {
  signal(SIGHUP, SIG_IGN);
  const int status = status_of_program({"sh", "-c", "kill -HUP $$; exit 3"});
  const int blocked = status_of_program({"grep", "-q", "^SigBlk:.*1$", "/proc/self/status"});
  signal(SIGHUP, SIG_DFL);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 3) << status;
  EXPECT_EQ(blocked, 0) << "mpirun takes one that is ignored";
  EXPECT_NE(status_of_program({"grep", "-q", "^SigBlk:.*1$", "/proc/self/status"}), 0);
}

// While it lives, PATH is so long that a program which is nowhere is looked for through many milliseconds.
class LongPath {
 public:
  LongPath() : before_(getenv("PATH")) {
    std::string path = "/nowhere";
    for (int folder = 0; folder < 20000; ++folder) path += ":/nowhere";
    setenv("PATH", path.c_str(), 1);
  }
  ~LongPath() { setenv("PATH", before_.c_str(), 1); }

 private:
  std::string before_;
};

// Once a signal in the moment of a start hid that the program could not be executed.
TEST(StartProcess, SaysWhatCantBeStartedAlsoWhenASignalComesMeanwhile) {
  const LongPath path;
  struct sigaction heard {}, before {};
  heard.sa_handler = [](int) {};
  sigaction(SIGALRM, &heard, &before);
  std::jthread disturber([main = pthread_self()](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (!children_of(getpid()).empty()) pthread_kill(main, SIGALRM);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  EXPECT_THROW(start_process({.command = {"at-no-place"}}), Error);
  EXPECT_THAT(children_of(getpid()), testing::IsEmpty());
  disturber.request_stop();
  disturber.join();
  sigaction(SIGALRM, &before, nullptr);
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

// A fork, a pipe or a program that failed for a moment ended the run for good.
TEST(StartProcess, TakesWhatPassesForAFaultThatIsTriedAgain) {
  const auto refusal = [](const std::string& program) {
    try {
      start_process({.command = {program}});
    } catch (const Error& error) {
      return error;
    }
    return Error(ExitCode::done, "it was started");
  };
  const auto expect_fault = [](const Error& error, const char* why) {
    EXPECT_EQ(error.code(), ExitCode::fault);
    EXPECT_THAT(error.what(), testing::AllOf(HasSubstr(why), Not(HasSubstr("install"))));
  };
  const auto without_descriptors = [&] {
    const test::DescriptorLimit few(3);  // too few for the undefined-behaviour sanitizer to look at a matcher
    return refusal("mpirun");
  }();
  expect_fault(without_descriptors, "Too many open files");
  const auto program = std::filesystem::path(testing::TempDir()) / fmt::format("smlp-written-{}", getpid());
  std::filesystem::copy_file("/bin/true", program);
  {
    const std::ofstream writes(program, std::ios::app);
    expect_fault(refusal(program.string()), "Text file busy");
  }
  std::filesystem::remove(program);
}

TEST(MpiCommand, LeavesTheBindingToTheRanks) {
  EXPECT_THAT(mpirun_command({.ranks = 2}, true), testing::ElementsAre("mpirun", "-n", "2", "--bind-to", "none"));
  EXPECT_THAT(mpirun_command({.ranks = 3}, false), Contains("--oversubscribe"));
  EXPECT_THAT(binding_option({.ranks = 4, .each = 2}), testing::ElementsAre("--bind", "4x2"));
}

TEST(MpiEnvironment, LetsRootAndCrowdedMachinesRun) {
  setenv("SLURM_JOB_ID", "7", 1);
  const auto crowded = launch_environment({.ranks = 3}, {.cores = 2}, "/dev/shm/x");
  EXPECT_THAT(crowded, Contains("OMPI_ALLOW_RUN_AS_ROOT=1"));
  EXPECT_THAT(crowded, Contains("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"));
  EXPECT_THAT(crowded, Contains("OMPI_MCA_mpi_yield_when_idle=1"));
  EXPECT_THAT(crowded, Contains("OMPI_MCA_btl_vader_backing_directory=/dev/shm/x"));
  EXPECT_THAT(crowded, Contains("OMP_NUM_THREADS=1"));
  EXPECT_THAT(crowded, Not(Contains("SLURM_JOB_ID=7"))) << "mpirun would ask the allocation for its nodes";
  unsetenv("SLURM_JOB_ID");
}

TEST(MpiEnvironment, OfAnAllocationLeavesOutLibfabricOverSockets) {
  using testing::AllOf;
  EXPECT_THAT(allocation_environment({.ranks = 1}, {.cores = 2}),
              Contains(AllOf(testing::StartsWith("OMPI_MCA_mtl_ofi_provider_exclude="), testing::HasSubstr(",tcp;ofi_rxm,"))));
  setenv("OMPI_MCA_mtl_ofi_provider_exclude", "psm2", 1);
  EXPECT_THAT(allocation_environment({.ranks = 1}, {.cores = 2}), Contains("OMPI_MCA_mtl_ofi_provider_exclude=psm2"))
      << "what a user has set stands";
  unsetenv("OMPI_MCA_mtl_ofi_provider_exclude");
}

TEST(Sessions, LeaveNothingBehind) {
  std::filesystem::path path;
  {
    EXPECT_NE(SessionFolder(std::int64_t{1} << 40).path().parent_path(), "/dev/shm") << "which has no room for so many";
    const SessionFolder session(2);
    path = session.path();
    EXPECT_TRUE(std::filesystem::is_directory(path));
    SessionFolder::sweep();
    EXPECT_TRUE(std::filesystem::is_directory(path)) << "one in use was swept";
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  std::string pattern = path.parent_path() / "smlp-session-XXXXXX";
  const std::filesystem::path left = mkdtemp(pattern.data());
  const auto old = std::filesystem::file_time_type::clock::now() - std::chrono::minutes(5);
  std::filesystem::last_write_time(left, old);
  SessionFolder::sweep();
  EXPECT_FALSE(std::filesystem::exists(left));
}

}  // namespace
}  // namespace smlp
