// What passes through the backend that owns the memory, and how often.
#include <gtest/gtest.h>

#include "comm/communicator.h"
#include "tests/comm/faraway_backend.h"
#include "tests/comm/memory.h"

namespace smlp {
namespace {

using test::FarawayBackend;
using test::Memory;

TEST(Solo, MovesRowsThroughTheBackendThatOwnsThem) {
  FarawayBackend backend;
  auto solo = make_solo(backend);
  Memory memory(&backend);
  const auto in = memory.view(std::vector<float>{1, 2, 3, 4}, {2, 2}, DType::f32);
  const auto out = memory.view(std::vector<float>(4), {2, 2}, DType::f32);
  const std::vector<std::int64_t> rows = {2};
  solo->all_to_all(in, rows, out, rows);
  EXPECT_EQ(backend.copies, 1);
  EXPECT_EQ(memory.read<float>(out), (std::vector<float>{1, 2, 3, 4}));
}

TEST(Staged, TakesTheHostsMemoryOfTheBackendAndKeepsIt) {
  FarawayBackend backend;
  {
    auto staged = make_staged(make_mpi_world(), backend);
    Memory memory(&backend);
    const auto ranks = static_cast<std::int64_t>(staged->size());
    const auto in = memory.view(std::vector<float>(static_cast<std::size_t>(ranks * 64)), {ranks, 64}, DType::f32);
    const auto out = memory.view(std::vector<float>(static_cast<std::size_t>(ranks * 64)), {ranks, 64}, DType::f32);
    const std::vector<std::int64_t> one(static_cast<std::size_t>(ranks), 1);
    const auto all = [&] {
      staged->all_to_all(in, one, out, one);
      staged->all_reduce(in, Reduce::sum);
      staged->broadcast(in.row_range(0, 1), 0);
    };
    all();
    const int taken = backend.host_blocks;
    EXPECT_EQ(taken, 2) << "one for each direction";
    for (int i = 0; i < 5; ++i) all();
    EXPECT_EQ(backend.host_blocks, taken) << "a step takes no memory";
    EXPECT_EQ(backend.host_blocks_held, 2);
  }
  EXPECT_EQ(backend.host_blocks_held, 0);
}

}  // namespace
}  // namespace smlp
