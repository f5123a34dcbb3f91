// What a seed plans: the same faults each time, apart by what a run needs to come back, and each strikes once.
#include "core/drill_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "core/error.h"

namespace smlp {
namespace {

using testing::HasSubstr;

constexpr DrillShape shape{.steps = 400, .save_every = 10, .compare_every = 20, .ranks = 3, .hang_floor_seconds = 2};

std::vector<FaultKind> all_kinds() {
  std::vector<FaultKind> kinds;
  for (const auto& name : fault_names()) kinds.push_back(fault_named(name).value());
  return kinds;
}

std::string text_of(const std::vector<Fault>& plan) {
  std::string text;
  for (const auto& f : plan) {
    text += std::to_string(f.number) + name_of(f.kind) + name_of(f.phase) + std::to_string(f.rank) + "@" +
            std::to_string(f.step) + "+" + std::to_string(f.fraction) + " ";
  }
  return text;
}

std::string refusal(const std::vector<FaultKind>& kinds, int count, const DrillShape& of) {
  try {
    plan_faults(1, kinds, count, of);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    return error.what();
  }
  return "";
}

TEST(DrillPlan, FollowsFromTheSeedAlone) {
  const auto plan = text_of(plan_faults(7, all_kinds(), 10, shape));
  EXPECT_EQ(plan, text_of(plan_faults(7, all_kinds(), 10, shape)));
  EXPECT_NE(plan, text_of(plan_faults(8, all_kinds(), 10, shape)));
}

TEST(DrillPlan, LeavesRoomBeforeBetweenAndAfter) {
  std::map<FaultKind, std::set<FaultPhase>> phases;
  std::map<FaultKind, std::set<std::size_t>> places;
  std::set<int> ranks;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const auto plan = plan_faults(seed, all_kinds(), 10, shape);
    ASSERT_EQ(plan.size(), 10u);
    std::set<FaultKind> kinds;
    for (std::size_t i = 0; i < plan.size(); ++i) {
      EXPECT_EQ(plan[i].number, static_cast<int>(i) + 1);
      EXPECT_GE(plan[i].step, i == 0 ? 20 : plan[i - 1].step + shape.save_every);
      EXPECT_LE(plan[i].step, shape.steps - shape.save_every - shape.compare_every);
      EXPECT_TRUE(plan[i].rank >= 0 && plan[i].rank < 3);
      EXPECT_TRUE(plan[i].fraction >= 0 && plan[i].fraction < 1);
      EXPECT_EQ(plan[i].seconds, plan[i].kind == FaultKind::slow ? 1 : 0) << "half of what a step may take";
      kinds.insert(plan[i].kind);
      phases[plan[i].kind].insert(plan[i].phase);
      places[plan[i].kind].insert(i);
      ranks.insert(plan[i].rank);
    }
    EXPECT_EQ(kinds.size(), fault_kinds) << "each before any twice";
  }
  EXPECT_EQ(ranks.size(), 3u);
  EXPECT_EQ(phases[FaultKind::kill_launcher].size(), 3u);
  EXPECT_EQ(phases[FaultKind::stop].size(), 2u);
  EXPECT_EQ(phases[FaultKind::nan].size(), 1u);
  for (const auto& [kind, where] : places) EXPECT_EQ(where.size(), 10u) << name_of(kind) << " comes at every place";
}

// A fault that is planned near the end strikes a little later, and once was struck at the last step: nobody saw the run come
// back. A full disk takes two intervals until a checkpoint is published again.
TEST(DrillPlan, LeavesRoomForAStrikeThatComesLateInTheShortestJobToo) {
  auto shortest = shape;
  const std::vector<FaultKind> kinds = {FaultKind::full_disk, FaultKind::torn_write, FaultKind::bit_flip};
  for (shortest.steps = 1; !refusal(kinds, 3, shortest).empty();) ++shortest.steps;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto plan = plan_faults(seed, kinds, 3, shortest);
    const auto room = [](const Fault& fault) {
      const auto back = fault.kind == FaultKind::full_disk  ? 2 * shape.save_every
                        : fault.kind == FaultKind::bit_flip ? shape.compare_every
                                                            : shape.save_every;
      return back + most_unseen_steps + 2;
    };
    EXPECT_GE(plan[0].step, 2 * shape.save_every);
    for (std::size_t i = 1; i < plan.size(); ++i) EXPECT_GE(plan[i].step, plan[i - 1].step + room(plan[i - 1]));
    EXPECT_LE(plan.back().step + room(plan.back()), shortest.steps - 2 * shape.save_every);
  }
}

TEST(DrillPlan, RefusesWhatCanNotBe) {
  EXPECT_THAT(refusal(all_kinds(), 30, shape), HasSubstr("--count"));
  EXPECT_THAT(refusal(all_kinds(), 30, shape), HasSubstr("train.steps = 400"));
  auto alone = shape;
  alone.ranks = 1;
  EXPECT_THAT(refusal({FaultKind::bit_flip}, 1, alone), HasSubstr("bit-flip"));
  EXPECT_EQ(refusal({FaultKind::kill}, 1, alone), "");
  auto blind = shape;
  blind.compare_every = 0;
  EXPECT_THAT(refusal({FaultKind::bit_flip}, 1, blind), HasSubstr("cluster.replica_check_every"));
  auto sharded = shape;
  sharded.shard_states = true;
  EXPECT_THAT(refusal({FaultKind::bit_flip}, 1, sharded), HasSubstr("optimizer.shard_states"));
  // Once the run began anew, for the damaged checkpoint was the only one, and was said to have lost too much.
  auto single = shape;
  single.keep_last = 1;
  EXPECT_THAT(refusal({FaultKind::torn_checkpoint}, 1, single), HasSubstr("checkpoint.keep_last is 1"));
  EXPECT_EQ(refusal({FaultKind::kill}, 1, single), "");
  // As few steps as the sentence says are enough, and one less is not.
  auto small = shape;
  const auto sentence = refusal(all_kinds(), 30, shape);
  const auto said = sentence.find(" steps are needed");
  ASSERT_NE(said, std::string::npos) << sentence;
  small.steps = std::stoll(sentence.substr(sentence.rfind(' ', said - 1) + 1));
  EXPECT_EQ(refusal(all_kinds(), 30, small), "");
  --small.steps;
  EXPECT_NE(refusal(all_kinds(), 30, small), "");
}

TEST(DrillPlan, KindsHaveNamesOfTheirOwn) {
  const auto names = fault_names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), fault_kinds);
  for (const auto& name : names) EXPECT_EQ(name_of(fault_named(name).value()), name);
  EXPECT_FALSE(fault_named("cut-off"));
}

class DrillFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-drill-XXXXXX";
    run.root = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(run.root); }
  std::string refused_plan(const std::string& text) {
    std::filesystem::create_directories(DrillFolder(run).path());
    std::ofstream(DrillFolder(run).path() / "plan.json") << text;
    try {
      DrillFolder(run).plan();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  RunDirectory run;
};

TEST_F(DrillFolderTest, KeepsThePlanAndWhoHasStruck) {
  const DrillFolder folder(run);
  const auto plan = plan_faults(3, all_kinds(), 10, shape);
  folder.begin(plan);
  EXPECT_EQ(text_of(folder.plan()), text_of(plan));
  EXPECT_FALSE(folder.is_turn(1));
  folder.open_turn(1);
  EXPECT_TRUE(folder.is_turn(1));
  EXPECT_FALSE(folder.is_turn(2));
  EXPECT_FALSE(folder.struck(1));
  EXPECT_EQ(folder.seen(), 0);
  folder.see(7);
  EXPECT_EQ(folder.seen(), 7);
  std::filesystem::remove(folder.path() / "seen");
  EXPECT_GT(folder.seen(), std::int64_t{1} << 60) << "nobody looks, and nobody is to be waited for";
  std::atomic<int> first = 0;
  {
    std::vector<std::jthread> ranks;
    for (int i = 0; i < 4; ++i) ranks.emplace_back([&] { first += folder.strike(1, {33, 2, 1234.5, 20}) ? 1 : 0; });
  }
  EXPECT_EQ(first, 1) << "one of them";
  EXPECT_FALSE(folder.strike(1, {40, 3, 1300})) << "a fault that has struck strikes in no later attempt";
  const auto struck = folder.struck(1);
  ASSERT_TRUE(struck);
  EXPECT_EQ(struck->step, 33);
  EXPECT_EQ(struck->attempt, 2);
  EXPECT_EQ(struck->time, 1234.5);
  EXPECT_EQ(struck->damaged, 20);
}

TEST_F(DrillFolderTest, RefusesAPlanThatIsNone) {
  for (const char* text : {"", "{", "[]", R"({"faults": 3})", R"({"faults": [{"kind": "kil"}]})",
                           R"({"faults": [{"number": 1, "kind": "kill", "phase": "noon", "rank": 0, "step": 3}]})"}) {
    EXPECT_THAT(refused_plan(text), HasSubstr("plan.json")) << text;
  }
  EXPECT_EQ(refused_plan(R"({"faults": [{"number": 1, "kind": "kill", "phase": "step", "rank": 0, "step": 3}]})"), "");
}

}  // namespace
}  // namespace smlp
