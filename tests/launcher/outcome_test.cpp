// Why an attempt ended, from what its starter and its ranks left behind.
#include "launcher/outcome.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>

#include "core/files.h"
#include "tests/launcher/run_folder.h"

namespace smlp {
namespace {

using testing::HasSubstr;

class Ending : public test::RunFolder {
 protected:
  Outcome end(int status, const std::string& words = "") {
    write_atomically(run.launch_log(1), words);
    return explain_end(run, 1, 2, "mpirun", status);
  }
};

TEST_F(Ending, IsExplained) {
  EXPECT_EQ(end(0).cause, "done");
  EXPECT_EQ(end(9).reason, "mpirun was killed by signal 9 (SIGKILL)");
  EXPECT_EQ(end(9).code, 137);
  EXPECT_EQ(end(1 << 8).code, 70) << "1 is the word of `checkpoint diff`, not of a run that mpirun could not start";
  EXPECT_THAT(end(1 << 8).reason, HasSubstr("mpirun ended with exit code 1"));
  const auto killed = end(137 << 8, "mpirun noticed that process rank 3 with PID 0 on node vm exited on\nsignal 9 (Killed).");
  EXPECT_EQ(killed.reason, "rank 3 was killed by signal 9 (SIGKILL)");
  EXPECT_EQ(killed.cause, "signal");
  EXPECT_EQ(end(3 << 8, "The first process to do so was:\n\n  Process name: [[4711,1],2]\n  Exit code:    3").reason,
            "rank 2 left with exit code 3");
  EXPECT_EQ(end(5 << 8, "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\nwith errorcode 5.").reason,
            "rank 1 left with exit code 5");
  EXPECT_THAT(end(1 << 8, "something else").reason, HasSubstr("launch.log"));
  EXPECT_EQ(end(143 << 8).reason, "a rank was killed by signal 15 (SIGTERM)");
  EXPECT_THAT(end(243 << 8).reason, HasSubstr("mpirun ended with exit code 243")) << "there is no signal 115";
  for (const int code : {64, 65, 69, 78}) EXPECT_TRUE(end(code << 8).is_final()) << code;
  for (const int code : {0, 1, 70, 74, 75, 76, 134, 137}) EXPECT_FALSE(end(code << 8).is_final()) << code;
  EXPECT_EQ(end(134 << 8).cause, "hang");
  EXPECT_EQ(end(134 << 8, "process rank 0 with PID 0 on node vm exited on signal 6 (Aborted).").cause, "signal");
  EXPECT_EQ(end(76 << 8).cause, "diverged");
}

// `smlp run` without PATH left with 243, mpirun's own, and the sentence named a file alone.
TEST_F(Ending, ACodeOfTheStartersOwnIsAFaultOfOursAndItsWordsAreTold) {
  const std::string frame(74, '-');
  const auto words = frame + "\nThe value of the MCA parameter \"plm_rsh_agent\" was set to a path\n"
                     "that could not be found:\n\n  plm_rsh_agent: ssh : rsh\n\n"
                     "Please either unset the parameter, or check that the path is correct\n" + frame + "\n";
  for (const int code : {2, 63, 66, 68, 71, 73, 77, 79, 127, 128, 193, 213, 243, 255}) {
    const auto ended = end(code << 8, words);
    EXPECT_EQ(ended.code, 70) << code;
    EXPECT_EQ(ended.cause, "fault") << code;
    EXPECT_THAT(ended.reason,
                testing::StartsWith(fmt::format("mpirun ended with exit code {}: The value of the MCA parameter \"plm_rsh_agent\" "
                                                "was set to a path that could not be found: ", code)));
  }
  EXPECT_LT(end(243 << 8, std::string(4'000'000, 'x')).reason.size(), 400u);
  const auto cut = end(243 << 8, "word " + std::string(290, 'y') + " and more words").reason;
  EXPECT_THAT(cut, HasSubstr("yy …; its words are in "));
}

TEST_F(Ending, ExplainsAnEndByASignalThatNobodyKnows) {
  const auto ended = end(137 << 8, "process rank 3 with PID 0 on node vm exited on signal 99999999999999999999 (Killed).");
  EXPECT_EQ(ended.reason, "rank 3 was killed by signal 99999999999999999999");
}

// std::regex takes stack for each byte: megabytes in the place of a message's words ended the launcher.
TEST_F(Ending, ExplainsAnEndThatALongLineOfARankWasPrintedInto) {
  const std::string flood(4'000'000, 'x'), blanks(4'000'000, ' ');
  const std::string last = "process rank 3 with PID 0 on node vm exited on signal 9 (Killed).";
  for (const auto& words : {"MPI_ABORT was invoked on rank 1 " + flood, "process" + blanks, "process rank 1 with PID 0 on node " + flood}) {
    EXPECT_EQ(end(137 << 8, words + "\n" + last).reason, "rank 3 was killed by signal 9 (SIGKILL)");
  }
}

TEST_F(Ending, PrefersTheSentenceOfTheRankThatFailedFirst) {
  write_atomically(run.error(1, 1), "rank 1: the shard is gone.\n");
  std::filesystem::last_write_time(run.error(1, 1), std::filesystem::file_time_type::clock::now() - std::chrono::seconds(5));
  write_atomically(run.error(1, 0), "rank 0: my peer is gone.\n");
  EXPECT_EQ(end(74 << 8, "Process name: [[4711,1],0]\n Exit code: 74").reason, "rank 1: the shard is gone");
}

TEST_F(Ending, SaysThatMemoryRanOutWhereSlurmDoes) {
  const auto killed = end(137 << 8, "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been "
                                    "OOM Killed.\nsrun: error: n1: task 1: Out Of Memory\n");
  EXPECT_THAT(killed.reason, HasSubstr("memory ran out, or a limit on it"));
  EXPECT_EQ(end(137 << 8, "srun: error: n1: task 1: Killed").reason.find("memory"), std::string::npos);
}

// mpirun's own death by SIGABRT has the number of a rank that finds itself hung.
TEST_F(Ending, AStarterThatAbortsIsNoRankThatHangs) {
  const auto aborted = end(SIGABRT, "*** stack smashing detected ***");
  EXPECT_EQ(aborted.cause, "signal");
  EXPECT_THAT(aborted.reason, HasSubstr("mpirun was killed by signal 6"));
}

}  // namespace
}  // namespace smlp
