// How ranks on GPUs talk, by what the job asks for, where they sit and what the build has.
#include "worker/gpu_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace smlp {
namespace {

using testing::HasSubstr;

const std::vector<GpuSeat> apart = {{"n1", "0000:10:00.0"}, {"n1", "0000:11:00.0"}, {"n2", "0000:10:00.0"}};
const std::vector<GpuSeat> shared = {{"n1", "0000:10:00.0"}, {"n2", "0000:10:00.0"}, {"n1", "0000:10:00.0"}};
const std::vector<GpuSeat> mixed = {{"n1", "0000:10:00.0"}, {"n2", ""}};
const std::vector<GpuSeat> on_cpus = {{"n1", ""}, {"n2", ""}};

std::string refusal(const std::string& wanted, const std::vector<GpuSeat>& seats, bool built_with_nccl) {
  try {
    return "accepted: " + choose_talk(wanted, seats, built_with_nccl).sentence;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::unavailable);
    return error.what();
  }
}

TEST(GpuRanks, WithAGpuEachTalkByNccl) {
  const auto choice = choose_talk("auto", apart, true);
  EXPECT_EQ(choice.talk, Talk::by_nccl) << "the same address on another host is another GPU";
  EXPECT_FALSE(choice.second_best);
  EXPECT_EQ(choose_talk("nccl", apart, true).talk, Talk::by_nccl);
}

TEST(GpuRanks, AutoFallsBackToCopiesAndSaysWhy) {
  for (const auto& [seats, nccl, why] : {std::tuple{shared, true, "ranks 0 and 2 share GPU 0000:10:00.0 of n1"},
                                         {mixed, true, "rank 1 computes on the CPU of n2"},
                                         {apart, false, "this build has no NCCL"}}) {
    const auto choice = choose_talk("auto", seats, nccl);
    EXPECT_EQ(choice.talk, Talk::staged);
    EXPECT_TRUE(choice.second_best);
    EXPECT_THAT(choice.sentence, HasSubstr(why));
  }
}

TEST(GpuRanks, StagedIsTakenAtItsWord) {
  for (const auto& seats : {apart, shared, mixed}) {
    EXPECT_EQ(choose_talk("staged", seats, true).talk, Talk::staged);
    EXPECT_FALSE(choose_talk("staged", seats, true).second_best) << "it was asked for";
  }
}

TEST(GpuRanks, NcclThatCantBeHadIsRefusedByName) {
  EXPECT_THAT(refusal("nccl", shared, true), HasSubstr("ranks 0 and 2 share GPU 0000:10:00.0 of n1"));
  EXPECT_THAT(refusal("nccl", mixed, true), HasSubstr("rank 1 computes on the CPU of n2"));
  EXPECT_THAT(refusal("nccl", on_cpus, true), HasSubstr("rank 0 computes on the CPU of n1"));
  EXPECT_THAT(refusal("nccl", apart, false), HasSubstr("this build of smlp has not"));
}

TEST(GpuRanks, WithoutGpusTalkOverMpi) {
  EXPECT_EQ(choose_talk("auto", on_cpus, true).talk, Talk::by_host);
  EXPECT_EQ(choose_talk("staged", on_cpus, false).talk, Talk::by_host);
}

}  // namespace
}  // namespace smlp
