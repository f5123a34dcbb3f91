#include "core/cores.h"

#include <gmock/gmock.h>
#include <sched.h>

#include <fstream>
#include <thread>

#include "core/error.h"
#include "core/layout.h"

namespace smlp {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Two packages of four cores with two hardware threads each, numbered as Linux does.
std::vector<Core> eight_cores() {
  std::vector<Core> cores;
  for (int core = 0; core < 8; ++core) cores.push_back({core, core + 8});
  return cores;
}

TEST(Cores, AreTakenByOneRankEach) {
  std::vector<int> taken;
  for (int rank = 0; rank < 4; ++rank) {
    const auto cpus = cpus_of_rank(eight_cores(), {.ranks = 4, .each = 2}, rank);
    taken.insert(taken.end(), cpus.begin(), cpus.end());
  }
  std::sort(taken.begin(), taken.end());
  EXPECT_THAT(taken, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  EXPECT_THAT(cpus_of_rank(eight_cores(), {.ranks = 4, .each = 2}, 1), ElementsAre(2, 3, 10, 11));
}

TEST(Cores, AreSpreadOverThePackages) {
  EXPECT_THAT(cpus_of_rank(eight_cores(), {.ranks = 2, .each = 1}, 0), ElementsAre(0, 8));
  EXPECT_THAT(cpus_of_rank(eight_cores(), {.ranks = 2, .each = 1}, 1), ElementsAre(4, 12)) << "the other package";
  EXPECT_THAT(cpus_of_rank(eight_cores(), {.ranks = 3, .each = 2}, 2), ElementsAre(4, 5, 12, 13));
}

TEST(Cores, TooFewAreTakenByNobody) {
  EXPECT_THAT(cpus_of_rank(eight_cores(), {.ranks = 3, .each = 3}, 0), IsEmpty());
  EXPECT_THAT(cpus_of_rank(eight_cores(), {.ranks = 2, .each = 1}, 2), IsEmpty());
  EXPECT_THAT(cpus_of_rank({}, {.ranks = 1, .each = 1}, 0), IsEmpty());
}

TEST(Cores, OfASharedHostAreBoundOnlyByWhoFillsIt) {
  EXPECT_TRUE(may_bind({.ranks = 2, .each = 1}, 2, false));
  EXPECT_FALSE(may_bind({.ranks = 1, .each = 1}, 2, false)) << "a second one may come";
  EXPECT_TRUE(may_bind({.ranks = 1, .each = 1}, 2, true));
  EXPECT_FALSE(may_bind({.ranks = 3, .each = 1}, 2, true));
}

TEST(Cores, AreWrittenShort) {
  EXPECT_EQ(cpu_list({}), "");
  EXPECT_EQ(cpu_list({3}), "3");
  EXPECT_EQ(cpu_list({0, 1, 2, 5, 8, 9}), "0-2,5,8-9");
}

TEST(Cores, BindAllThreadsOfTheProcess) {
  const auto before = cores_here();
  ASSERT_FALSE(before.empty());
  std::vector<int> all;
  for (const auto& core : before) all.insert(all.end(), core.begin(), core.end());
  std::atomic<bool> go = false;
  std::size_t seen_there = 0;
  std::thread early([&] {
    while (!go) std::this_thread::yield();
    seen_there = cores_here().size();
  });
  bind_to(before.back());
  go = true;
  early.join();
  EXPECT_EQ(cores_here(), std::vector<Core>{before.back()});
  EXPECT_EQ(threads_here(), std::ssize(before.back())) << "a rank once made its first weights with threads for the whole host";
  EXPECT_EQ(seen_there, 1u) << "a thread that was there before";
  bind_to(all);
  EXPECT_EQ(threads_here(), std::ssize(all));
  EXPECT_THROW(bind_to({}), Error);
}

TEST(ExpertPlace, GroupsAreRanksThatFollowOneAnother) {
  const auto place = expert_place(5, 4, 8);
  EXPECT_EQ(place.group, 1);
  EXPECT_EQ(place.replicas, 1);
  EXPECT_EQ(place.first_expert, 2);
  EXPECT_EQ(place.experts, 2);
}

}  // namespace
}  // namespace smlp
