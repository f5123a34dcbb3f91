// Views, shapes, the arena and the counter-based random numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "tensor/arena.h"
#include "tensor/backend.h"

namespace smlp {
namespace {

TEST(TensorView, CutsRowsColumnsAndSlices) {
  std::vector<float> data(2 * 3 * 4);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const TensorView view(data.data(), {2, 3, 4}, DType::f32);
  EXPECT_EQ(view.size(), 24);
  EXPECT_EQ(view.bytes(), 96);
  EXPECT_EQ(view.rows(), 6);
  EXPECT_EQ(view.width(), 4);
  EXPECT_TRUE(view.contiguous());
  EXPECT_EQ(view.shape.text(), "[2, 3, 4]");

  const TensorView second = view.slice(1);
  EXPECT_EQ(second.shape, (Shape{3, 4}));
  EXPECT_EQ(second.as<float>()[0], 12);
  EXPECT_EQ(second.slice(2).as<float>()[3], 23);

  const TensorView columns = view.column_range(1, 2);
  EXPECT_FALSE(columns.contiguous());
  const TensorView matrix = columns.matrix();
  EXPECT_EQ(matrix.shape, (Shape{6, 2}));
  EXPECT_EQ(matrix.row_stride(), 4);
  EXPECT_EQ(matrix.as<float>()[5 * 4 + 1], 22);
  EXPECT_EQ(view.matrix().row_range(2, 3).as<float>()[0], 8);
  EXPECT_EQ(view.reshaped({4, 6}).slice(3).as<float>()[0], 18);

  TensorView positions = view;  // positions 1 and 2 of each sequence: no single row stride
  positions.data = view.at(4);
  positions.shape = {2, 2, 4};
  EXPECT_THROW(positions.matrix(), Error);
  EXPECT_THROW(columns.reshaped({12}), Error);
  EXPECT_THROW(view.row_range(1, 2), Error);
  EXPECT_THROW(view.column_range(3, 2), Error);
  EXPECT_THROW(view.slice(2), Error);
}

TEST(DType, NamesAndSizes) {
  for (const DType type : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i32, DType::i64, DType::u8}) {
    EXPECT_EQ(dtype_named(name_of(type)), type);
    EXPECT_GT(size_of(type), 0);
  }
  EXPECT_THROW(dtype_named("f8"), Error);
}

class ArenaTest : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

TEST_F(ArenaTest, AllocatesNothingAfterTheFirstStep) {
  Arena arena(*backend_);
  std::int64_t after_first = 0;
  for (int step = 0; step < 4; ++step) {
    std::vector<TensorView> taken;
    for (int i = 1; i <= 40; ++i) {
      taken.push_back(arena.take({i * 1000, 17}, i % 2 ? DType::f32 : DType::f64));
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(taken.back().data) % 64, 0u);
      backend_->fill(taken.back(), i);
    }
    for (int i = 1; i <= 40; ++i) {
      const TensorView& view = taken[static_cast<std::size_t>(i - 1)];
      const auto value = [&](std::int64_t at) {
        return i % 2 ? static_cast<double>(view.as<float>()[at]) : view.as<double>()[at];
      };
      EXPECT_EQ(value(0), i);  // no later one overlaps
      EXPECT_EQ(value(view.size() - 1), i);
    }
    arena.reset();
    if (step == 0) after_first = arena.allocations();
    EXPECT_EQ(arena.allocations(), after_first);
  }
  EXPECT_GE(arena.peak_bytes(), 40 * 41 / 2 * 1000 * 17 * 4);
}

TEST_F(ArenaTest, TakesFromWhatWasReserved) {
  Arena arena(*backend_);
  arena.reserve(40 * 64000);
  for (int step = 0; step < 2; ++step) {
    for (int i = 0; i < 40; ++i) arena.take({16000}, DType::f32);
    EXPECT_EQ(arena.allocations(), 1);
    arena.reset();
  }
}

// A little more than was reserved took half as much again, which a device has not got where its memory was counted; and what
// was merged then had no room for the next such step.
TEST_F(ArenaTest, GrowsBySixteenthsOfWhatWasReserved) {
  constexpr std::int64_t reserved = std::int64_t{64} << 20, sixteenth = reserved / 16;
  Arena arena(*backend_);
  arena.reserve(reserved);
  auto allocations_of_step = [&, before = arena.allocations()](std::int64_t more) mutable {
    arena.take({reserved}, DType::u8);
    arena.take({more}, DType::u8);
    arena.reset();
    return arena.allocations() - std::exchange(before, arena.allocations());
  };
  EXPECT_EQ(allocations_of_step(64), 2) << "a sixteenth more, and both as one";
  EXPECT_EQ(allocations_of_step(sixteenth), 0);
  EXPECT_EQ(allocations_of_step(sixteenth + 64), 2);
}

TEST_F(ArenaTest, GivesBackWhatAFrameTook) {
  Arena arena(*backend_);
  const TensorView kept = arena.take({100}, DType::f32);
  void* inside = nullptr;
  {
    const Arena::Frame frame(arena);
    inside = arena.take({200}, DType::f32).data;
    {
      const Arena::Frame inner(arena);
      arena.take({std::int64_t{1} << 20}, DType::f32);  // a further block
    }
  }
  EXPECT_EQ(arena.take({10}, DType::f32).data, inside);
  EXPECT_NE(kept.data, inside);
}

TEST_F(ArenaTest, AnImpossibleSizeIsSaidInASentence) {
  Arena arena(*backend_);
  try {
    arena.take({std::int64_t{1} << 50}, DType::f64);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("9007199254740992"), std::string::npos) << error.what();
  }
}

TEST(Random, PhiloxGivesThePublishedNumbers) {  // Random123's known answers for philox4x32-10
  EXPECT_EQ(philox(0, 0, 0), (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, StreamsAreUniformAndNormalAndApart) {
  const RandomStream one(1, "one"), other(1, "other");
  EXPECT_EQ(one.bits(5), RandomStream(1, "one").bits(5));
  EXPECT_NE(one.bits(5), other.bits(5));
  EXPECT_NE(one.bits(5), RandomStream(2, "one").bits(5));
  const int count = 100000;
  double mean = 0, squares = 0, normal_mean = 0, normal_squares = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double u = one.uniform(i), n = one.normal(i);
    ASSERT_TRUE(u >= 0 && u < 1);
    mean += u / count;
    squares += u * u / count;
    normal_mean += n / count;
    normal_squares += n * n / count;
  }
  EXPECT_NEAR(mean, 0.5, 0.005);
  EXPECT_NEAR(squares, 1.0 / 3, 0.005);
  EXPECT_NEAR(normal_mean, 0, 0.015);
  EXPECT_NEAR(normal_squares, 1, 0.02);
}

TEST(Random, PermuteIsABijectionForEverySize) {
  for (const std::uint64_t size : {1, 2, 3, 17, 64, 1000}) {
    for (const std::uint64_t key : {0, 7}) {
      std::set<std::uint64_t> seen;
      for (std::uint64_t i = 0; i < size; ++i) {
        const std::uint64_t place = permute(i, size, key);
        ASSERT_LT(place, size);
        seen.insert(place);
      }
      EXPECT_EQ(seen.size(), size);
    }
  }
}

}  // namespace
}  // namespace smlp
