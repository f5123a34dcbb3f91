// Every collective against arithmetic that fits in a line, for one rank and for the MPI ranks that are there,
// with whole messages and with messages cut into pieces of a few bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "tests/comm/comm_case.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"

namespace smlp {
namespace {

using test::CommCase;
using test::Memory;

class Comm : public testing::TestWithParam<CommCase> {
 protected:
  void SetUp() override {
    backend = GetParam().backend();
    comm = GetParam().make(*backend);
    memory = std::make_unique<Memory>(GetParam().of_the_backend ? backend.get() : nullptr);
    rank = comm->rank();
    ranks = comm->size();
  }

  std::int64_t limited(std::int64_t n) const { return std::min(n, GetParam().most); }

  // A collective behind what the backend has got, and before what it gets next.
  template <class Call>
  void in_order(Call call) {
    comm->after(*backend);
    call();
    comm->before(*backend);
  }

  // Rank p holds rank_value(p, i) in element i; exact in every type that is summed.
  static double rank_value(int p, std::int64_t i) { return static_cast<double>((i % 91 + 1) * (p + 1)); }

  template <class T>
  void check_all_reduce(std::int64_t n, DType type) {
    std::vector<T> mine(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i)
      mine[static_cast<std::size_t>(i)] = static_cast<T>(rank_value(rank, i));
    for (const auto op : {Reduce::sum, Reduce::max}) {
      const auto view = memory->view(mine, {n}, type);
      in_order([&] { comm->all_reduce(view, op); });
      const auto got = memory->read<T>(view);
      const int factor = op == Reduce::sum ? ranks * (ranks + 1) / 2 : ranks;
      for (std::int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(static_cast<double>(got[static_cast<std::size_t>(i)]), rank_value(0, i) * factor)
            << name_of(type) << " element " << i << " of " << n;
      }
    }
  }

  // Parts of n elements, apart from the whole or within it.
  template <class T>
  void check_reduce_scatter(std::int64_t n, DType type, bool within) {
    std::vector<T> mine;
    for (std::int64_t i = 0; i < n * ranks; ++i) mine.push_back(static_cast<T>(rank_value(rank, i)));
    const auto whole = memory->view(mine, {n * ranks}, type), own = whole.row_range(rank * n, n);
    const auto part = within ? own : memory->view(std::vector<T>(static_cast<std::size_t>(n), T(-1)), {n}, type);
    const auto before = comm->bytes_sent();
    in_order([&] { comm->reduce_scatter(whole, part); });
    EXPECT_EQ(comm->bytes_sent() - before, n * (ranks - 1) * static_cast<std::int64_t>(sizeof(T)));
    const auto got = memory->read<T>(part);
    for (std::int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(static_cast<double>(got[static_cast<std::size_t>(i)]),
                rank_value(0, rank * n + i) * (ranks * (ranks + 1) / 2))
          << name_of(type) << " element " << i << " of " << n;
    }
  }
  template <class T>
  void check_all_gather(std::int64_t n, DType type, bool within) {
    const auto value = [](int p, std::int64_t i) { return static_cast<T>((p * 29 + i) % 117); };
    std::vector<T> mine, expected, before;
    for (std::int64_t i = 0; i < n; ++i) mine.push_back(value(rank, i));
    for (int p = 0; p < ranks; ++p) {
      for (std::int64_t i = 0; i < n; ++i) {
        expected.push_back(value(p, i));
        before.push_back(within && p == rank ? value(p, i) : T(120));
      }
    }
    const auto whole = memory->view(before, {n * ranks}, type);
    const auto own = within ? whole.row_range(rank * n, n) : memory->view(mine, {n}, type);
    in_order([&] { comm->all_gather(own, whole); });
    EXPECT_EQ(memory->read<T>(whole), expected) << name_of(type) << ", " << n << " elements a rank";
  }

  // Sends rows[from][to] rows of `width` elements from every rank to every rank, and checks each element
  // received.
  template <class T>
  void check_all_to_all(const std::vector<std::vector<std::int64_t>>& rows, std::int64_t width, DType type) {
    const auto value = [&](int from, int to, std::int64_t i) {
      return static_cast<T>((from * 31 + to * 7 + i) % 113);
    };
    std::vector<std::int64_t> rows_to = rows[static_cast<std::size_t>(rank)], rows_from;
    std::vector<T> in, expected;
    for (int p = 0; p < ranks; ++p) {
      rows_from.push_back(rows[static_cast<std::size_t>(p)][static_cast<std::size_t>(rank)]);
      for (std::int64_t i = 0; i < rows_to[static_cast<std::size_t>(p)] * width; ++i)
        in.push_back(value(rank, p, i));
      for (std::int64_t i = 0; i < rows_from.back() * width; ++i) expected.push_back(value(p, rank, i));
    }
    const auto count = [&](const std::vector<T>& v) { return static_cast<std::int64_t>(v.size()) / width; };
    const auto before = comm->bytes_sent();
    const auto from = memory->view(in, {count(in), width}, type);
    const auto to = memory->view(std::vector<T>(expected.size(), T(-1)), {count(expected), width}, type);
    in_order([&] { comm->all_to_all(from, rows_to, to, rows_from); });
    EXPECT_EQ(memory->read<T>(to), expected);
    const auto leaving = count(in) - rows_to[static_cast<std::size_t>(rank)];
    EXPECT_EQ(comm->bytes_sent() - before, leaving * width * static_cast<std::int64_t>(sizeof(T)));
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> comm;
  std::unique_ptr<Memory> memory;
  int rank = 0, ranks = 0;
};

INSTANTIATE_TEST_SUITE_P(All, Comm, testing::ValuesIn(test::comm_cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(Comm, KnowsItsPlace) {
  EXPECT_EQ(ranks, GetParam().alone ? 1 : test::world().size());
  EXPECT_GE(rank, 0);
  EXPECT_LT(rank, ranks);
}

TEST_P(Comm, AllReduceSumsAndTakesTheMaximum) {
  for (const std::int64_t n : {0, 1, 7, 1000, 4099}) {
    check_all_reduce<float>(limited(n), DType::f32);
    check_all_reduce<double>(limited(n), DType::f64);
    check_all_reduce<std::int64_t>(limited(n), DType::i64);
  }
}

TEST_P(Comm, AllReduceOfManyPiecesSumsEveryElement) {
  if (GetParam().most < 3'000'001) GTEST_SKIP() << "as many messages as numbers";
  check_all_reduce<float>(3'000'001, DType::f32);
}

// Every rank must hold the same bits, and the same call must give them again.
TEST_P(Comm, AllReduceGivesTheSameBitsEverywhereAndEveryTime) {
  const std::int64_t n = limited(700'003);
  std::vector<float> mine(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < mine.size(); ++i)
    mine[i] = std::sin(static_cast<float>(i * 7 + 1) * (1.F + 0.37F * static_cast<float>(rank)));
  std::vector<float> first;
  for (int round = 0; round < 3; ++round) {
    const auto view = memory->view(mine, {n}, DType::f32);
    in_order([&] { comm->all_reduce(view, Reduce::sum); });
    const auto sum = memory->read<float>(view);
    if (round == 0) first = sum;
    ASSERT_EQ(std::memcmp(first.data(), sum.data(), first.size() * sizeof(float)), 0) << "round " << round;
  }
  std::vector<std::byte> bytes(first.size() * sizeof(float));
  std::memcpy(bytes.data(), first.data(), bytes.size());
  const auto all = comm->gather_bytes(bytes, 0);
  for (const auto& other : all) EXPECT_TRUE(other == bytes);
}

TEST_P(Comm, AllReduceRefusesTypesItCantSum) {
  if (GetParam().alone) GTEST_SKIP() << "one rank has nothing to sum";
  const auto view = memory->view(std::vector<std::int32_t>(4), {4}, DType::i32);
  EXPECT_THROW(comm->all_reduce(view, Reduce::sum), Error);
}

TEST_P(Comm, ReduceScatterGivesEachRankItsPartOfTheSum) {
  for (const bool within : {false, true}) {
    for (const std::int64_t n : {0, 1, 7, 1000, 4099}) {
      check_reduce_scatter<float>(limited(n), DType::f32, within);
      check_reduce_scatter<double>(limited(n), DType::f64, within);
      check_reduce_scatter<std::int64_t>(limited(n), DType::i64, within);
    }
  }
}

TEST_P(Comm, ReduceScatterOfManyPiecesSumsEveryElement) {
  if (GetParam().most < 3'000'001) GTEST_SKIP() << "as many messages as numbers";
  check_reduce_scatter<float>(300'001, DType::f32, true);
}

// The same call must give the same bits again, and with two ranks, whose sums know no order, those of all_reduce.
TEST_P(Comm, ReduceScatterGivesTheSameBitsEveryTime) {
  const std::int64_t n = limited(150'003);
  std::vector<float> mine(static_cast<std::size_t>(n * ranks));
  for (std::size_t i = 0; i < mine.size(); ++i)
    mine[i] = std::sin(static_cast<float>(i * 7 + 1) * (1.F + 0.37F * static_cast<float>(rank)));
  const auto whole = memory->view(mine, {n * ranks}, DType::f32);
  in_order([&] { comm->all_reduce(whole, Reduce::sum); });
  const auto expected = memory->read<float>(whole.row_range(rank * n, n));
  std::vector<float> first;
  for (int round = 0; round < 3; ++round) {
    const auto view = memory->view(mine, {n * ranks}, DType::f32), part = view.row_range(rank * n, n);
    in_order([&] { comm->reduce_scatter(view, part); });
    const auto sum = memory->read<float>(part);
    if (round == 0) first = sum;
    ASSERT_EQ(std::memcmp(first.data(), sum.data(), first.size() * sizeof(float)), 0) << "round " << round;
  }
  for (std::size_t i = 0; i < first.size(); ++i) {
    ASSERT_NEAR(first[i], expected[i], ranks <= 2 ? 0 : 1e-5) << "element " << i;
  }
}

TEST_P(Comm, AllGatherBringsEveryPartToEveryRank) {
  for (const bool within : {false, true}) {
    for (const std::int64_t n : {0, 1, 13, 4097}) {
      check_all_gather<float>(limited(n), DType::f32, within);
      check_all_gather<std::uint16_t>(limited(n), DType::bf16, within);
      check_all_gather<std::uint8_t>(limited(n), DType::u8, within);
      check_all_gather<double>(limited(n), DType::f64, within);
    }
  }
}

TEST_P(Comm, PartsThatAreNotTheWholeAreRefused) {
  const auto whole = memory->view(std::vector<float>(static_cast<std::size_t>(ranks * 3)), {ranks * 3}, DType::f32);
  const auto part = memory->view(std::vector<float>(2), {2}, DType::f32);
  const auto wide = memory->view(std::vector<double>(3), {3}, DType::f64);
  for (const auto& wrong : {part, wide}) {
    EXPECT_THROW(comm->reduce_scatter(whole, wrong), Error);
    EXPECT_THROW(comm->all_gather(wrong, whole), Error);
  }
}

TEST_P(Comm, BroadcastReachesEveryRankFromEveryRoot) {
  for (int root = 0; root < ranks; ++root) {
    for (const std::int64_t size : {0, 1, 13, 4097}) {
      const std::int64_t n = limited(size);
      std::vector<std::int32_t> mine(static_cast<std::size_t>(n), rank == root ? 0 : -1),
          expected(mine.size());
      std::iota(expected.begin(), expected.end(), root * 1000);
      if (rank == root) mine = expected;
      const auto view = memory->view(mine, {n}, DType::i32);
      in_order([&] { comm->broadcast(view, root); });
      EXPECT_EQ(memory->read<std::int32_t>(view), expected) << "root " << root << ", " << n << " elements";
    }
  }
}

TEST_P(Comm, AllToAllMovesEqualUnevenAndEmptyParts) {
  const auto n = static_cast<std::size_t>(ranks);
  using Rows = std::vector<std::vector<std::int64_t>>;
  Rows equal(n, std::vector<std::int64_t>(n, 3)), none(n, std::vector<std::int64_t>(n, 0)), uneven = none;
  Rows only_last = none;
  for (std::size_t from = 0; from < n; ++from) {
    for (std::size_t to = 0; to < n; ++to)
      uneven[from][to] = static_cast<std::int64_t>((from * 5 + to * 3) % 4);
    only_last[from][n - 1] = static_cast<std::int64_t>(from + 1);
  }
  for (const auto& rows : {equal, none, uneven, only_last}) {
    check_all_to_all<float>(rows, 5, DType::f32);
    check_all_to_all<std::uint16_t>(rows, 7, DType::bf16);
    check_all_to_all<std::uint8_t>(rows, 1, DType::u8);
    check_all_to_all<double>(rows, 129, DType::f64);
  }
}

// Each call takes what the one before has left, and nobody waits in between.
TEST_P(Comm, CallsFollowEachOtherWithoutTheBackend) {
  const std::int64_t n = ranks * 5;
  std::vector<float> mine(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) mine[static_cast<std::size_t>(i)] = static_cast<float>(rank * 100 + i);
  const auto summed = memory->view(mine, {n}, DType::f32);
  const auto passed = memory->view(std::vector<float>(mine.size(), -1), {n}, DType::f32);
  const auto told = memory->view(std::vector<float>(mine.size(), static_cast<float>(rank)), {n}, DType::f32);
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(ranks), 5);
  in_order([&] {
    comm->all_reduce(summed, Reduce::sum);
    comm->all_to_all(summed, rows, passed, rows);
    comm->all_reduce(passed, Reduce::max);
    comm->broadcast(told, ranks - 1);
  });
  const auto got = memory->read<float>(passed);
  // Of all ranks' sums, which are alike, rank p has the p-th part from each; the last part is the largest.
  for (std::int64_t i = 0; i < n; ++i) {
    const auto last = static_cast<double>((ranks - 1) * 5 + i % 5);
    EXPECT_EQ(static_cast<double>(got[static_cast<std::size_t>(i)]),
              50.0 * ranks * (ranks - 1) + ranks * last)
        << "element " << i;
  }
  EXPECT_EQ(memory->read<float>(told), std::vector<float>(mine.size(), static_cast<float>(ranks - 1)));
}

TEST_P(Comm, AllToAllLeavesRowsBehindTheLastAlone) {
  const auto n = static_cast<std::size_t>(ranks);
  const std::int64_t total = ranks * 2 + 3;
  const auto in =
      memory->view(std::vector<float>(static_cast<std::size_t>(total * 4), 1.F), {total, 2, 2}, DType::f32);
  const auto out =
      memory->view(std::vector<float>(static_cast<std::size_t>(total * 4), -1.F), {total, 2, 2}, DType::f32);
  const std::vector<std::int64_t> rows(n, 2);
  in_order([&] { comm->all_to_all(in, rows, out, rows); });
  const auto got = memory->read<float>(out);
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], i < n * 8 ? 1.F : -1.F) << "element " << i;
}

TEST_P(Comm, AllToAllRefusesCountsThatDontFit) {
  const auto view = memory->view(std::vector<float>(4), {2, 2}, DType::f32);
  const auto other = memory->view(std::vector<float>(4), {2, 2}, DType::f32);
  using Counts = std::vector<std::int64_t>;
  const auto expect_refused = [&](TensorView in, const Counts& to, TensorView out, const Counts& from, const char* why) {
    try {
      comm->all_to_all(in, to, out, from);
      ADD_FAILURE() << why;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  const auto me = static_cast<std::size_t>(rank);
  const Counts none(static_cast<std::size_t>(ranks), 0);
  auto one = none, three = none, negative = none, more = none;
  one[me] = 1;
  three[me] = 3;
  negative[me] = -1;
  more.push_back(0);
  const auto large = memory->view(std::vector<float>(8), {4, 2}, DType::f32);
  const auto wide = memory->view(std::vector<float>(6), {2, 3}, DType::f32);
  expect_refused(view, three, large, three, "more rows than a view has");
  expect_refused(large, three, other, three, "more rows than a view has");
  expect_refused(view, more, other, none, "one count of rows for each rank");
  expect_refused(view, none, other, more, "one count of rows for each rank");
  expect_refused(view, negative, other, negative, "a negative count");
  expect_refused(view, one, other, none, "take from itself what it sends itself");
  expect_refused(view, one, wide, one, "the rows of the two views differ");
}

TEST_P(Comm, HostNumbersAreSummedAndCompared) {
  std::vector<double> numbers = {1.0 * rank, 2.5, -1.0 * rank};
  comm->all_reduce_host(numbers, Reduce::sum);
  EXPECT_EQ(numbers,
            (std::vector<double>{ranks * (ranks - 1) / 2.0, 2.5 * ranks, -ranks * (ranks - 1) / 2.0}));
  numbers = {1.0 * rank, -1.0 * rank};
  comm->all_reduce_host(numbers, Reduce::max);
  EXPECT_EQ(numbers, (std::vector<double>{ranks - 1.0, 0.0}));
  comm->all_reduce_host({}, Reduce::sum);
}

TEST_P(Comm, HostBlocksGoToTheirRanks) {
  for (const std::int64_t block : {0, 1, 3}) {
    std::vector<std::int64_t> in, expected;
    for (int p = 0; p < ranks; ++p) {
      for (std::int64_t i = 0; i < block; ++i) {
        in.push_back(rank * 100 + p * 10 + i);
        expected.push_back(p * 100 + rank * 10 + i);
      }
    }
    std::vector<std::int64_t> out(in.size(), -1);
    comm->all_to_all_host(in, out);
    EXPECT_EQ(out, expected);
  }
}

TEST_P(Comm, BytesOfEveryLengthAreGathered) {
  for (int root = 0; root < ranks; ++root) {
    // Rank p brings p · 50 bytes: rank 0 brings none.
    const std::vector<std::byte> mine(static_cast<std::size_t>(rank) * 50, static_cast<std::byte>(rank + 1));
    const auto all = comm->gather_bytes(mine, root);
    ASSERT_EQ(all.size(), rank == root ? static_cast<std::size_t>(ranks) : 0U);
    for (std::size_t p = 0; p < all.size(); ++p) {
      EXPECT_EQ(all[p], std::vector<std::byte>(p * 50, static_cast<std::byte>(p + 1)));
    }
  }
}

TEST_P(Comm, BytesAreBroadcastWithTheirLength) {
  for (int root = 0; root < ranks; ++root) {
    for (const std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{1001}}) {
      const std::vector<std::byte> expected(length, static_cast<std::byte>(root + 5));
      auto bytes = rank == root ? expected : std::vector<std::byte>(17, std::byte{99});
      comm->broadcast_bytes(bytes, root);
      EXPECT_EQ(bytes, expected);
    }
  }
}

TEST_P(Comm, SplitGroupsTalkAmongThemselves) {
  auto parity = comm->split(rank % 2, rank);
  std::vector<double> members = {1, 1.0 * rank};
  parity->all_reduce_host(members, Reduce::sum);
  double count = 0, sum = 0;
  for (int p = rank % 2; p < ranks; p += 2) {
    count += 1;
    sum += p;
  }
  EXPECT_EQ(members, (std::vector<double>{count, sum}));
  EXPECT_EQ(parity->size(), static_cast<int>(count));
  auto reversed = comm->split(0, -rank);
  EXPECT_EQ(reversed->rank(), ranks - 1 - rank);
  auto inner = parity->split(0, 0);
  inner->barrier();
}

TEST_P(Comm, TheGridHoldsEveryRankOnceInEachDirection) {
  for (int expert_ranks = 1; expert_ranks <= ranks; ++expert_ranks) {
    if (ranks % expert_ranks != 0) {
      EXPECT_THROW(ProcessGrid::cut(comm->split(0, rank), expert_ranks), Error);
      continue;
    }
    auto grid = ProcessGrid::cut(comm->split(0, rank), expert_ranks);
    EXPECT_EQ(grid.world->size(), ranks);
    EXPECT_EQ(grid.experts->size(), expert_ranks);
    EXPECT_EQ(grid.experts->rank(), rank % expert_ranks);
    EXPECT_EQ(grid.replicas->size(), ranks / expert_ranks);
    EXPECT_EQ(grid.replicas->rank(), rank / expert_ranks);
    double sum = rank;
    grid.experts->all_reduce_host({&sum, 1}, Reduce::sum);
    const int first = rank / expert_ranks * expert_ranks;
    EXPECT_EQ(sum, expert_ranks * first + expert_ranks * (expert_ranks - 1) / 2);
  }
}

TEST_P(Comm, CallsTimeAndBytesAreCounted) {
  EXPECT_EQ(comm->calls(), 0);
  comm->barrier();
  EXPECT_STREQ(comm->last_call(), "barrier");
  const auto view = memory->view(std::vector<float>(120), {120}, DType::f32);
  in_order([&] { comm->all_reduce(view, Reduce::sum); });
  EXPECT_STREQ(comm->last_call(), "all_reduce");
  EXPECT_EQ(comm->calls(), 2);
  EXPECT_EQ(comm->bytes_sent(), 2 * 480 * (ranks - 1) / ranks);
  const double longest = comm->take_longest();
  EXPECT_GT(longest, 0);
  EXPECT_LT(longest, 10);
  EXPECT_EQ(comm->take_longest(), 0) << "since it was last asked";
}

TEST_P(Comm, SplitGroupsMoveViewsAmongThemselves) {
  auto parity = comm->split(rank % 2, -rank);
  auto all = comm->split(0, rank);
  const auto view = memory->view(std::vector<double>{1.0 * rank, 1}, {2}, DType::f64);
  const auto of_all = memory->view(std::vector<double>{1.0 * rank, 1}, {2}, DType::f64);
  const auto told = memory->view(std::vector<std::int64_t>{rank}, {1}, DType::i64);
  in_order([&] {
    parity->all_reduce(view, Reduce::sum);
    all->all_reduce(of_all, Reduce::sum);
    parity->broadcast(told, 0);
  });
  double count = 0, sum = 0, last = 0;
  for (int p = rank % 2; p < ranks; p += 2) {
    count += 1;
    sum += p;
    last = p;
  }
  EXPECT_EQ(memory->read<double>(view), (std::vector<double>{sum, count}));
  EXPECT_EQ(memory->read<double>(of_all), (std::vector<double>{ranks * (ranks - 1) / 2.0, 1.0 * ranks}));
  EXPECT_EQ(memory->read<std::int64_t>(told), std::vector<std::int64_t>{static_cast<std::int64_t>(last)});
}

}  // namespace
}  // namespace smlp
