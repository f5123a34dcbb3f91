// What the tiers of saves decide by: partners, which local save is whole, which one counts, and when a save is due.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "tests/without_rights.h"
#include "worker/local_choice.h"
#include "worker/local_record.h"
#include "worker/partners.h"
#include "worker/save_plan.h"

namespace smlp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Hosts = std::vector<std::string>;

TEST(Partners, SitOnTheNextNode) {
  const Hosts hosts = {"b", "b", "a", "a", "c", "c"};
  for (int rank = 0; rank < 6; ++rank) {
    const auto partners = partners_of(rank, hosts);
    EXPECT_EQ(partners.to, (rank + 2) % 6) << rank;
    EXPECT_THAT(partners.from, ElementsAre((rank + 4) % 6)) << rank;
  }
}

TEST(Partners, EveryShardIsHeldElsewhereAlsoWhereNodesDiffer) {
  for (const Hosts& hosts : {Hosts{"a", "a", "a", "b"}, Hosts{"a", "b", "a", "c", "a"}, Hosts{"a", "b", "b", "b", "b"}}) {
    std::vector<int> held(hosts.size());
    for (int rank = 0; rank < static_cast<int>(hosts.size()); ++rank) {
      const auto partners = partners_of(rank, hosts);
      ASSERT_TRUE(partners.to);
      EXPECT_NE(hosts[static_cast<std::size_t>(*partners.to)], hosts[static_cast<std::size_t>(rank)]);
      EXPECT_THAT(partners_of(*partners.to, hosts).from, testing::Contains(rank));
      for (const int from : partners.from) ++held[static_cast<std::size_t>(from)];
    }
    EXPECT_THAT(held, testing::Each(1));
  }
}

TEST(Partners, OnOneNodeAreNeighboursAndALoneRankHasNone) {
  EXPECT_EQ(partners_of(2, Hosts{"a", "a", "a"}).to, 0);
  EXPECT_THAT(partners_of(0, Hosts{"a", "a", "a"}).from, ElementsAre(2));
  EXPECT_FALSE(partners_of(0, Hosts{"a"}).to);
  EXPECT_THAT(partners_of(0, Hosts{"a"}).from, IsEmpty());
}

Holding held(int holder, std::int64_t step, int attempt, int rank, bool copy = false, int ranks = 2) {
  return {.holder = holder, .save = {step, attempt}, .rank = rank, .ranks = ranks,
          .copy = copy};
}

TEST(LocalCandidates, AreWholeWhenEveryShardIsSomewhere) {
  const auto found = candidates_of({held(0, 10, 1, 0), held(1, 10, 1, 1), held(0, 20, 1, 0), held(0, 15, 2, 1, true),
                                    held(1, 15, 2, 0, true)});
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].save, (SaveId{20, 1}));
  EXPECT_THAT(found[0].fault(), HasSubstr("rank 1 is on no node"));
  EXPECT_EQ(found[1].save, (SaveId{15, 2}));
  EXPECT_EQ(found[1].fault(), "");
  EXPECT_EQ(found[2].save, (SaveId{10, 1}));
  EXPECT_EQ(found[2].fault(), "");
}

TEST(LocalCandidates, ShardsOfTwoAttemptsMakeNoSave) {
  const auto found = candidates_of({held(0, 10, 1, 0), held(1, 10, 2, 1)});
  ASSERT_EQ(found.size(), 2U);
  EXPECT_NE(found[0].fault(), "");
  EXPECT_NE(found[1].fault(), "");
}

TEST(LocalCandidates, OfDifferentNumbersOfRanksDoNotHold) {
  const auto found = candidates_of({held(0, 10, 1, 0), held(1, 10, 1, 1), held(1, 10, 1, 2, false, 3)});
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(found[0].fault(), HasSubstr("some of its shards say that it has 2 ranks, others 3"));
}

TEST(LocalCandidates, AreReadByTheirOwnRanksThenByPartnersAndForgetWhatDoesNotHold) {
  auto found = candidates_of({held(1, 10, 1, 0), held(0, 10, 1, 0), held(1, 10, 1, 0, true), held(0, 10, 1, 1, true),
                              held(1, 10, 1, 1)});
  auto& save = found.at(0);
  EXPECT_THAT(save.readers(), ElementsAre(Reader{0, false}, Reader{1, false}));
  save.forget(0, {0, false});
  EXPECT_THAT(save.readers(), ElementsAre(Reader{1, false}, Reader{1, false}));
  save.forget(0, {1, false});
  save.forget(1, {1, false});
  EXPECT_THAT(save.readers(), ElementsAre(Reader{1, true}, Reader{0, true}));
  save.forget(0, {1, true});
  EXPECT_THAT(save.fault(), HasSubstr("the shard of rank 0"));
}

TEST(LocalCandidates, AreReadByManyWhereManyCan) {
  std::vector<Holding> holdings;  // of a node that is gone; four ranks see the copies
  for (int rank = 0; rank < 8; ++rank) {
    for (int holder = 10; holder < 14; ++holder) holdings.push_back(held(holder, 10, 1, rank, true, 8));
  }
  std::vector<int> load(14);
  for (const auto& reader : candidates_of(holdings).at(0).readers()) ++load[static_cast<std::size_t>(reader.holder)];
  EXPECT_THAT(std::vector<int>(load.begin() + 10, load.end()), testing::Each(2));
}

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "smlp-tiers-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no scratch folder");
    run.root = pattern;
  }
  ~Folder() { std::filesystem::remove_all(run.root); }
  void write(const std::filesystem::path& file, const std::string& text) { std::ofstream(file) << text; }
  RunDirectory run;
};

TEST(LocalRecord, CountsNoSaveThatALaterAttemptWentBehind) {
  auto record = LocalRecord::of(Folder().run);
  record.began(1, 0);
  EXPECT_TRUE(record.counts({100, 1}));
  record.began(2, 60);  // of attempt 1's
  EXPECT_TRUE(record.counts({60, 1}));
  EXPECT_FALSE(record.counts({61, 1}));
  EXPECT_TRUE(record.counts({70, 2}));
  record.began(3, 80);
  EXPECT_TRUE(record.counts({80, 2}));
  EXPECT_FALSE(record.counts({81, 2}));
  EXPECT_FALSE(record.counts({61, 1})) << "still";
  record.began(4, 20);
  EXPECT_FALSE(record.counts({60, 1}));
  EXPECT_FALSE(record.counts({21, 3}));
  EXPECT_TRUE(record.counts({20, 1}));
  record.began(5, 90);
  EXPECT_TRUE(record.counts({90, 4}));
  EXPECT_FALSE(record.counts({90, 3}));
  const auto read = LocalRecord::parse(record.text());
  EXPECT_EQ(read.text(), record.text());
  EXPECT_FALSE(read.counts({21, 3}));
  for (const char* start : {"[5,9e40]", "[4294967301,90]"}) {
    auto damaged = record.text();
    damaged.replace(damaged.find("[5,90]"), 6, start);
    EXPECT_THROW(LocalRecord::parse(damaged), Error) << start;
  }
}

TEST(LocalRecord, IsNewWhereItCannotBeReadOrCameWithACopyOfTheRun) {
  Folder one, other;
  const auto record = LocalRecord::of(one.run);
  one.write(one.run.local_tier(), record.text());
  EXPECT_EQ(LocalRecord::of(one.run).name(), record.name());
  other.write(other.run.local_tier(), record.text());
  EXPECT_NE(LocalRecord::of(other.run).name(), record.name());
  for (const std::string damage : {"", "{", "[]", R"({"name":"../x","run":"","starts":[]})", R"({"name":"smlp-1"})"}) {
    one.write(one.run.local_tier(), damage);
    EXPECT_NE(LocalRecord::of(one.run).name(), record.name()) << damage;
  }
}

// It was taken for none, and the run's own saves on the nodes were swept away as another's.
TEST(LocalRecord, IsNotNewWhereTheDiskDoesNotShowIt) {
  Folder folder;
  folder.write(folder.run.local_tier(), LocalRecord::of(folder.run).text());
  std::filesystem::permissions(folder.run.root, test::readable_by_all);
  std::filesystem::permissions(folder.run.local_tier(), std::filesystem::perms::none);
  const test::WithoutRights nobody;
  try {
    LocalRecord::of(folder.run);
    ADD_FAILURE() << "it was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io_failed) << error.what();
  }
}

// An attempt without local_dir left no mark: the next one that had it went on from a save that the run had gone back behind.
TEST(LocalRecord, KnowsOfAnAttemptThatHadNoLocalSaves) {
  Folder folder;
  give_up_later_local_saves(folder.run, 4, 100);
  EXPECT_FALSE(std::filesystem::exists(folder.run.local_tier())) << "there was nothing to give up";
  folder.write(folder.run.local_tier(), LocalRecord::of(folder.run).text());
  give_up_later_local_saves(folder.run, 5, 100);
  const auto record = LocalRecord::of(folder.run);
  EXPECT_FALSE(record.counts({150, 4}));
  EXPECT_TRUE(record.counts({100, 4}) && record.counts({150, 5}));
}

// The record keeps its path as JSON has it, without bytes that are no UTF-8, and was compared with the bare one: after each
// restart no local save counted.
TEST(LocalRecord, IsFoundAgainWhereThePathOfTheRunIsNoUtf8) {
  Folder folder;
  const RunDirectory run{folder.run.root / "caf\xe9"};
  std::filesystem::create_directories(run.root);
  const auto record = LocalRecord::of(run);
  folder.write(run.local_tier(), record.text());
  const auto again = LocalRecord::of(run);
  EXPECT_EQ(again.name(), record.name());
  EXPECT_EQ(again.run(), record.run()) << "by which folders left under other names are known";
}

TEST(SaveInterval, IsYoungs) {
  EXPECT_DOUBLE_EQ(best_interval(2, 100), 20);
  // A save of 10 s and a failure a day, as Daly's examples have it: some 22 minutes.
  EXPECT_NEAR(best_interval(10, 86400) / 60, 21.9, 0.1);
}

TEST(SaveInterval, FailuresCountAgainstTheTimeTheRunWasUp) {
  EXPECT_DOUBLE_EQ((FailureRate{0, 0}).seconds_between(), 86400);
  EXPECT_DOUBLE_EQ((FailureRate{86400.0 * 9, 4}).seconds_between(), 2 * 86400.0);
  EXPECT_LT((FailureRate{3600, 5}).seconds_between(), 5 * 3600);
}

TEST(SaveInterval, CountsWhatEndedUnasked) {
  Folder folder;
  std::string lines;
  for (const int code : {0, 75, 64, 65, 69, 78, 70, 137, 76, 74, 134}) lines += fmt::format("{{\"exit_code\":{}}}\n", code);
  folder.write(folder.run.attempts(), lines + "{\"exit_code\":1");  // half a line
  EXPECT_EQ(count_failures(folder.run), 5);
}

// `steps` steps of `seconds`.
void pass(SaveIntervals& intervals, int steps, double seconds) {
  for (int i = 0; i < steps; ++i) intervals.step(seconds);
}
constexpr FailureRate once_in_100_s = {.seconds_up = 0, .failures = 863};  // 86400 / 864

TEST(SaveInterval, CostsAreTheStallAndWhatStepsTakeLonger) {
  SaveIntervals intervals(1, 1000);
  EXPECT_THAT(intervals.choose(once_in_100_s), IsEmpty()) << "nothing is known yet";
  EXPECT_EQ(intervals.seconds(Tier::shared), 1);
  pass(intervals, 20, 1.0);
  intervals.begun(Tier::shared, 0.5);
  pass(intervals, 3, 1.5);
  intervals.over(Tier::shared);
  pass(intervals, 5, 1.0);
  EXPECT_THAT(intervals.choose(once_in_100_s), ElementsAre(Tier::shared));
  EXPECT_DOUBLE_EQ(intervals.seconds(Tier::shared), 20);  // cost 2 s
  EXPECT_EQ(intervals.seconds(Tier::local), 1);
  EXPECT_THAT(intervals.sentence(Tier::shared, once_in_100_s), HasSubstr("every 20.0 s: one costs 2.000 s"));
  EXPECT_THAT(intervals.choose(once_in_100_s), IsEmpty()) << "said already";
}

TEST(SaveInterval, StaysWithinBoundsAndLeavesHalfTheTimeWithoutASave) {
  SaveIntervals intervals(5, 30);
  pass(intervals, 20, 1.0);
  intervals.begun(Tier::local, 0.0001);
  intervals.over(Tier::local);
  intervals.begun(Tier::shared, 50);
  intervals.over(Tier::shared);
  intervals.choose(once_in_100_s);
  EXPECT_EQ(intervals.seconds(Tier::local), 5);
  EXPECT_EQ(intervals.seconds(Tier::shared), 30);
  SaveIntervals slow(1, 1000);
  pass(slow, 20, 1.0);
  slow.begun(Tier::shared, 0.005);
  pass(slow, 40, 1.0);
  slow.over(Tier::shared);
  slow.choose(once_in_100_s);
  EXPECT_NEAR(slow.seconds(Tier::shared), 80, 0.1);
}

TEST(SaveInterval, IsKnownToTheNextAttempt) {
  SaveIntervals intervals(1, 1000);
  intervals.begun(Tier::local, 0.5);
  intervals.over(Tier::local);
  intervals.choose(once_in_100_s);
  SaveIntervals next(1, 1000);
  next.recall(intervals.text());
  EXPECT_THAT(next.choose(once_in_100_s), IsEmpty()) << "no news";
  EXPECT_DOUBLE_EQ(next.seconds(Tier::local), 10);
  for (const std::string damage : {"", "[]", "{\"local\":7}", "{\"local\":{\"cost_seconds\":-1}}"}) {
    SaveIntervals fresh(1, 1000);
    fresh.recall(damage);
    fresh.choose(once_in_100_s);
    EXPECT_EQ(fresh.seconds(Tier::local), 1) << damage;
  }
}

TEST(SavePlan, StepsOfEachTierComeDueByTheirOwnNumber) {
  Folder folder;
  SavePlan plan({.every_steps = 10, .local_dir = {}, .local_every_steps = 3}, folder.run);
  plan.start(6, Tier::shared);
  EXPECT_FALSE(plan.due(Tier::local, 8));
  EXPECT_TRUE(plan.due(Tier::local, 9));
  EXPECT_TRUE(plan.due(Tier::local, 10)) << "made up for";
  EXPECT_FALSE(plan.due(Tier::shared, 9));
  EXPECT_TRUE(plan.due(Tier::shared, 10));
  plan.begun(Tier::shared, 10, 0);
  EXPECT_FALSE(plan.due(Tier::shared, 19));
  EXPECT_TRUE(plan.due(Tier::local, 11)) << "the shared save was none of the nodes'";
}

TEST(SavePlan, ASaveIsDueByTime) {
  Folder folder;
  SavePlan plan({.every_steps = 0, .every_seconds = 0.2, .local_dir = {}}, folder.run);
  const auto is_due = [&] { return plan.due(Tier::shared, 1); };
  plan.start(0, Tier::shared);
  EXPECT_FALSE(is_due());
  sleep_seconds(0.2);
  EXPECT_TRUE(is_due());
  plan.begun(Tier::shared, 1, 0);
  EXPECT_FALSE(is_due()) << "the time runs anew";
  SavePlan never({.every_steps = 0, .every_seconds = 0, .local_dir = {}}, folder.run);
  never.start(0, Tier::shared);
  sleep_seconds(0.2);
  EXPECT_FALSE(never.due(Tier::shared, 1000));
}

TEST(SavePlan, WhatOnlyTheNodesHaveIsDueForTheSharedDirectory) {
  Folder folder;
  SavePlan plan({.every_steps = 100, .local_dir = {}, .local_every_steps = 3}, folder.run);
  plan.start(6, Tier::local);
  EXPECT_TRUE(plan.due(Tier::shared, 7));
  EXPECT_FALSE(plan.due(Tier::local, 7));
  EXPECT_EQ(plan.last(Tier::shared), -1);
}

TEST(SavePlan, ChosenIntervalsAreKeptInTheRun) {
  Folder folder;
  const JobConfig::Checkpoint job = {
      .every_steps = 1, .automatic = true, .auto_least_seconds = 7, .auto_most_seconds = 70, .local_dir = {}};
  const auto moved = [](std::string& said) {
    return [&said](Tier tier, double seconds, const std::string&) { said += fmt::format("{} {} ", name_of(tier), seconds); };
  };
  std::string first, second;
  SavePlan plan(job, folder.run);
  plan.start(0, Tier::shared);
  plan.choose(0, moved(first));
  EXPECT_EQ(first, "");
  EXPECT_FALSE(plan.due(Tier::shared, 100)) << "steps say nothing";
  plan.begun(Tier::shared, 1, 0.01);
  plan.over(Tier::shared);
  plan.choose(0, moved(first));
  EXPECT_THAT(first, testing::StartsWith("shared 41.5"));  // sqrt(2 x 0.01 x 86400)
  SavePlan next(job, folder.run);
  next.choose(0, moved(second));
  EXPECT_EQ(second, "");
  // With what was measured then, though no save was made since.
  for (int failure = 0; failure < 3; ++failure) append_line(folder.run.attempts(), R"({"attempt":1,"exit_code":137})");
  SavePlan after_failures(job, folder.run);
  after_failures.choose(0, moved(second));
  EXPECT_THAT(second, testing::StartsWith("shared 20.7"));
  SavePlan fresh({.automatic = true, .auto_least_seconds = 1e-9, .local_dir = {}}, folder.run);
  fresh.start(0, Tier::shared);
  EXPECT_TRUE(fresh.due(Tier::local, 0));
}

}  // namespace
}  // namespace smlp
