// What NCCL adds to what every communicator does: tests/comm/comm_test.cpp runs in this program, too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "comm/nccl/nccl_communicator.h"
#include "core/error.h"
#include "tests/comm/faraway_backend.h"
#include "tests/comm/memory.h"
#include "tests/comm/ranks.h"
#include "tests/cuda_emulation/fake_nccl.h"

namespace smlp::test {
namespace {

using emulation::nccl_communicators;
using emulation::nccl_operations;
using testing::HasSubstr;

class Nccl : public testing::Test {
 protected:
  template <class Call>
  void in_order(Call call) {
    comm.after(*backend);
    call();
    comm.before(*backend);
  }
  template <class Call>
  std::string sentence_of(Call call) {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  }

  std::unique_ptr<Backend> backend = make_cuda_backend();
  std::shared_ptr<Communicator> host = world().split(0, world().rank());
  std::shared_ptr<NcclSession> session = std::make_shared<NcclSession>(host);
  NcclCommunicator comm{host, session};
  Memory memory{backend.get()};
  const int rank = comm.rank(), ranks = comm.size();
};

// 1.0 and 2.0 in the upper half of f32's bits, and in f16's.
constexpr std::uint16_t bf16_one = 0x3F80, f16_one = 0x3C00;

TEST_F(Nccl, SumsShortFloats) {
  for (const auto& [type, one, two, four] : {std::tuple{DType::bf16, bf16_one, 0x4000, 0x4080},
                                             {DType::f16, f16_one, 0x4000, 0x4400}}) {
    const auto view = memory.view(std::vector<std::uint16_t>(5, one), {5}, type);
    in_order([&] { comm.all_reduce(view, Reduce::sum); });
    const int wanted = ranks == 1 ? one : ranks == 2 ? two : four;
    EXPECT_EQ(memory.read<std::uint16_t>(view), std::vector<std::uint16_t>(5, static_cast<std::uint16_t>(wanted)))
        << name_of(type);
  }
}

TEST_F(Nccl, SumsGoToTheirSharesAndSharesToAll) {
  const std::int64_t share = 1001, all = share * ranks;
  std::vector<float> mine(static_cast<std::size_t>(all));
  for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = static_cast<float>((i % 97 + 1) * static_cast<std::size_t>(rank + 1));
  const auto value = [&](std::size_t i) { return static_cast<float>((i % 97 + 1) * static_cast<std::size_t>(ranks * (ranks + 1) / 2)); };
  for (const bool in_place : {false, true}) {
    const auto in = memory.view(mine, {all}, DType::f32);
    const auto own = in.row_range(rank * share, share);
    const auto apart = memory.view(std::vector<float>(static_cast<std::size_t>(share), -1), {share}, DType::f32);
    const auto out = in_place ? own : apart;
    const auto gathered =
        in_place ? in : memory.view(std::vector<float>(static_cast<std::size_t>(all), -1), {all}, DType::f32);
    const auto before = comm.bytes_sent();
    in_order([&] {
      comm.reduce_scatter(in, out);
      comm.all_gather(out, gathered);
    });
    EXPECT_EQ(comm.bytes_sent() - before, 2 * 4 * share * (ranks - 1));
    const auto sums = memory.read<float>(out), everything = memory.read<float>(gathered);
    for (std::size_t i = 0; i < everything.size(); ++i) ASSERT_EQ(everything[i], value(i)) << in_place << ", " << i;
    for (std::size_t i = 0; i < sums.size(); ++i)
      ASSERT_EQ(sums[i], value(i + static_cast<std::size_t>(rank * share))) << in_place << ", " << i;
  }
}

TEST_F(Nccl, SharesThatAreNotEqualAreRefused) {
  const auto view = memory.view(std::vector<float>(12), {12}, DType::f32);
  const auto other = memory.view(std::vector<double>(12), {12}, DType::f64);
  EXPECT_THROW(comm.reduce_scatter(view, view.row_range(0, 5)), Error);
  EXPECT_THROW(comm.all_gather(view.row_range(0, 5), view), Error);
  EXPECT_THROW(comm.all_gather(view, other), Error);
}

TEST_F(Nccl, GroupsThatMoveNoViewsJoinNobody) {
  const auto alive = nccl_communicators();
  {
    auto bytes = comm.split(0, rank), lone = comm.split(rank, 0);
    bytes->barrier();
    double sum = 1;
    bytes->all_reduce_host({&sum, 1}, Reduce::sum);
    EXPECT_EQ(nccl_communicators(), alive);
    const auto view = memory.view(std::vector<float>{1}, {1}, DType::f32);
    in_order([&] { lone->all_reduce(view, Reduce::sum); });
    EXPECT_EQ(nccl_communicators(), alive) << "one rank needs no NCCL";
    in_order([&] { bytes->all_reduce(view, Reduce::sum); });
    in_order([&] { bytes->all_reduce(view, Reduce::sum); });
    EXPECT_EQ(nccl_communicators(), alive + (ranks > 1 ? 1 : 0));
  }
  EXPECT_EQ(nccl_communicators(), alive) << "what was joined is left";
}

TEST_F(Nccl, AGroupThatIsToldToConnectHasJoinedBeforeItsFirstCollective) {
  const int before = nccl_communicators();
  comm.connect();
  EXPECT_EQ(nccl_communicators(), before + (ranks == 1 ? 0 : 1));
  const auto view = memory.view(std::vector<float>(3, 1), {3}, DType::f32);
  in_order([&] { comm.all_reduce(view, Reduce::sum); });
  EXPECT_EQ(memory.read<float>(view), std::vector<float>(3, static_cast<float>(ranks)));
  EXPECT_EQ(nccl_communicators(), before + (ranks == 1 ? 0 : 1));
}

TEST_F(Nccl, AnExchangeOfNothingCallsNothing) {
  const auto view = memory.view(std::vector<float>(4), {4}, DType::f32);
  const auto before = nccl_operations();
  const std::vector<std::int64_t> none(static_cast<std::size_t>(ranks), 0);
  in_order([&] { comm.all_to_all(view, none, view, none); });
  in_order([&] { comm.all_reduce(view.row_range(0, 0), Reduce::sum); });
  EXPECT_EQ(nccl_operations(), before);
}

TEST_F(Nccl, ACallThatIsNotBehindTheBackendsWorkIsSeen) {
  if (ranks == 1) GTEST_SKIP() << "one rank calls nothing";
  const auto view = memory.view(std::vector<float>(4), {4}, DType::f32);
  const auto sentence = sentence_of([&] { comm.all_reduce(view, Reduce::sum); });
  EXPECT_THAT(sentence, HasSubstr("all_reduce failed on rank"));
  EXPECT_THAT(sentence, HasSubstr("was after() called"));
}

TEST_F(Nccl, RanksThatDifferGetASentence) {
  if (ranks == 1) GTEST_SKIP() << "nobody to differ from";
  const auto view = memory.view(std::vector<float>(4), {4}, DType::f32);
  const auto sentence =
      sentence_of([&] { in_order([&] { comm.all_reduce(view.row_range(0, rank == 0 ? 3 : 4), Reduce::sum); }); });
  EXPECT_THAT(sentence, HasSubstr("all_reduce failed on rank"));
  EXPECT_THAT(sentence, HasSubstr("of 12"));
}

TEST_F(Nccl, NeedsACudaBackend) {
  FarawayBackend other;
  EXPECT_THAT(sentence_of([&] { make_nccl(world().split(0, rank), other); }), HasSubstr("no CUDA device"));
}

}  // namespace
}  // namespace smlp::test
