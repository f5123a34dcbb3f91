// What two ranks and their mpirun say, as a terminal shows it.
#include "launcher/rank_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace smlp {
namespace {

using testing::HasSubstr;

std::string shown(const std::string& said, int status) {
  char* text = nullptr;
  std::size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    RankWords words(out);
    EXPECT_EQ(write(words.entrance(), said.data(), said.size()), std::ssize(said));
    words.pass_on();
    words.end(status);
  }
  std::fclose(out);
  std::string result(text, size);
  std::free(text);
  return result;
}

const std::string frame = std::string(74, '-') + "\n";
const std::string aborted = frame + "MPI_ABORT was invoked on rank 0 in communicator MPI_COMM_WORLD\nwith errorcode 78.\n\n" +
                            "NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.\n" + frame;
const std::string more = "[n1:7] 1 more process has sent help message help-mpi-api.txt / mpi-abort\n"
                         "[n1:7] Set MCA parameter \"orte_base_help_aggregate\" to 0 to see all help / error messages\n";

// `eval --ranks 2` said it twice, and eight lines of Open MPI around it.
TEST(RankWords, ASentenceOfSeveralRanksStandsAlone) {
  const std::string sentence = "smlp: a text of 2 tokens holds none that this model predicts\n";
  EXPECT_EQ(shown(sentence + aborted + sentence + more, 78), sentence);
  EXPECT_EQ(shown(aborted + sentence + "smlp: another\n", 78), sentence + "smlp: another\n");
}

TEST(RankWords, WhatMpirunSaysStandsWhereNoRankSaysWhy) {
  const auto full = frame + "There are not enough slots available\n" + frame;
  EXPECT_EQ(shown(full, 1), full);
  EXPECT_THAT(shown("smlp: warning: slow\n" + frame + "rank 1 exited on signal 9 (Killed).\n" + frame, 137),
              HasSubstr("signal 9"));
  EXPECT_EQ(shown(aborted + more, 70), aborted + more);
}

TEST(RankWords, OtherLinesPassAtOnceAndAsOftenAsTheyCome) {
  EXPECT_EQ(shown("ERROR: AddressSanitizer\n  frame\n  frame\n" + aborted + "smlp: it failed\nhalf", 70),
            "ERROR: AddressSanitizer\n  frame\n  frame\nsmlp: it failed\nhalf");
}

}  // namespace
}  // namespace smlp
