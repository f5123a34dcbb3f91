// Tables of hash routing against Python's numbers and by their properties, and the router that reads them.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "routing/hash_table.h"
#include "tests/routing/router_bench.h"

namespace smlp {
namespace {

using test::RouterBench;

TEST(PythonRandom, GivesPythonsNumbersAfterSeed42) {
  PythonRandom random(42);
  for (const std::uint32_t wanted : {0xa3b1799du, 0x1c80317fu, 0x06671ad1u, 0xbdd640fbu}) EXPECT_EQ(random.bits(), wanted);
  PythonRandom long_seed((std::uint64_t{1} << 40) + 5);  // random.seed(2**40 + 5); random.getrandbits(32)
  EXPECT_EQ(long_seed.bits(), 0x811f1124u);
}

TEST(HashTable, RandomIsThatOfHashLadder) {
  EXPECT_EQ(random_table(20, 32, 42), (std::vector<std::int32_t>{7, 1, 17, 15, 14, 8, 6, 5, 27, 2, 1, 5, 13, 14, 1, 12, 26,
                                                                 14, 28, 17}));
  EXPECT_EQ(random_table(10, 16, 42), (std::vector<std::int32_t>{3, 0, 8, 7, 7, 4, 3, 2, 13, 1}));
  EXPECT_EQ(random_table(10, 4, 42), (std::vector<std::int32_t>{0, 0, 2, 1, 1, 1, 0, 0, 3, 0}));
  EXPECT_EQ(random_table(3, 1, 42), (std::vector<std::int32_t>{0, 0, 0}));
  const auto table = random_table(50257, 32, 42);
  std::vector<std::int64_t> sizes(32, 0);
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < table.size(); ++i) {
    ++sizes[static_cast<std::size_t>(table[i])];
    sum = (sum + static_cast<std::int64_t>(i + 1) * table[i]) % 1000000007;
  }
  EXPECT_EQ(sum, 662145694);
  EXPECT_EQ(*std::min_element(sizes.begin(), sizes.end()), 1482);
  EXPECT_EQ(*std::max_element(sizes.begin(), sizes.end()), 1633);
}

TEST(HashTable, BalancedSharesOutFrequenciesFromTheMostFrequentOn) {
  EXPECT_EQ(balanced_table(std::vector<double>{5, 9, 1, 4, 3}, 2), (std::vector<std::int32_t>{1, 0, 1, 1, 0}));
  // Zipf's law, as in text: every expert comes within the frequency of the first token of its even share.
  std::vector<double> zipf(5000);
  for (std::size_t i = 0; i < zipf.size(); ++i) zipf[(i * 7919) % zipf.size()] = std::floor(1e6 / static_cast<double>(i + 3));
  const auto table = balanced_table(zipf, 16);
  std::vector<double> filled(16, 0);
  for (std::size_t i = 0; i < table.size(); ++i) filled[static_cast<std::size_t>(table[i])] += zipf[i];
  const double even = std::accumulate(zipf.begin(), zipf.end(), 0.0) / 16;
  for (const double f : filled) EXPECT_NEAR(f, even, 0.001 * even);
  // Ids that never occur are shared out too, by count.
  const auto unseen = balanced_table(std::vector<double>(12, 0.0), 4);
  for (std::int32_t e = 0; e < 4; ++e) EXPECT_EQ(std::count(unseen.begin(), unseen.end(), e), 3);
}

TEST(HashRouter, SendsTokensByTheirIdsAndCountsEveryAnswerAsItIs) {
  RouterBench b;
  RouterSettings settings{.tokens = "hash", .hash_table = {0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2}};
  Router& router = b.make(settings, 3, 4);
  const TensorView x = b.rows(test::random_values(6 * 4, 1), 4);
  for (const bool training : {true, false}) {
    RouteCall call = b.call(3, training);
    call.tokens = b.memory.take({6}, DType::i32);
    test::write_indices(*b.backend, call.tokens, {10, 9, 8, 2, 3, 10});
    const RoutePlan plan = router.plan(call, x);
    EXPECT_FALSE(plan.weight);
    EXPECT_TRUE(plan.no_empty_slot);
    EXPECT_EQ(plan.rows_of_expert, (std::vector<std::int64_t>{2, 2, 2}));
    EXPECT_EQ(b.decision(plan, 6).tokens_of_expert, (std::vector<std::vector<std::int32_t>>{{1, 4}, {2, 3}, {0, 5}}));
    const TensorView dx = b.memory.take(x.shape, DType::f64);
    router.backward(call, plan, {}, x, dx);
    EXPECT_EQ(test::read(*b.backend, dx), test::read(*b.backend, x));
    router.backward(call, plan, {}, {}, dx);
    EXPECT_EQ(test::read(*b.backend, dx), std::vector<double>(24, 0.0));
    RouteCall empty = b.call(3, training);
    EXPECT_EQ(router.plan(empty, x.row_range(0, 0)).slots(), 0);
  }
  EXPECT_TRUE(b.store.parameters().empty());
  ASSERT_EQ(b.store.tables().size(), 1u);
  EXPECT_EQ(b.store.tables()[0].name, "layer.table");
}

TEST(HashRouter, RefusesATableThatDoesNotFit) {
  RouterBench b;
  EXPECT_THROW(b.make({.tokens = "hash", .hash_table = {0, 1}}, 3, 4), Error);
  RouterBench c;
  EXPECT_THROW(c.make({.tokens = "hash", .hash_table = std::vector<std::int32_t>(11, 3)}, 3, 4), Error);
  RouterBench d;
  EXPECT_THROW(d.make({.tokens = "hash"}, 3, 4), Error);  // first values are asked for, and there are none
}

}  // namespace
}  // namespace smlp
