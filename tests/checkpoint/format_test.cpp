#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "checkpoint/boxes.h"
#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"
#include "checkpoint/names.h"
#include "checkpoint/sparse_bytes.h"
#include "core/digest.h"
#include "core/error.h"
#include "tests/checkpoint/sample.h"

namespace smlp::test {

// Boxes, walked in order, name exactly the elements of the range, in order.
TEST(Boxes, CoverEveryFlatRangeInOrder) {
  for (const auto& dims : {std::vector<std::int64_t>{7}, {4, 3}, {1, 5}, {3, 2, 4}, {2, 3, 2, 2}}) {
    std::int64_t size = 1;
    for (const auto d : dims) size *= d;
    for (std::int64_t offset = 0; offset <= size; ++offset) {
      for (std::int64_t count = 0; offset + count <= size; ++count) {
        const auto boxes = boxes_of(dims, offset, count);
        EXPECT_LE(boxes.size(), 2 * dims.size() - 1);
        auto expected = offset;
        for (const auto& box : boxes) {
          std::vector<std::int64_t> place(dims.size(), 0);
          for (std::int64_t n = 0; n < box.elements(); ++n) {
            std::int64_t flat = 0, rest = n;
            for (std::size_t i = dims.size(); i-- > 0;) {
              place[i] = box.start[i] + rest % box.extent[i];
              rest /= box.extent[i];
            }
            for (std::size_t i = 0; i < dims.size(); ++i) flat = flat * dims[i] + place[i];
            ASSERT_EQ(flat, expected++);
          }
        }
        ASSERT_EQ(expected, offset + count);
      }
    }
  }
}

Manifest small_manifest() {
  return {.step = 12,
          .attempt = 3,
          .ranks = 2,
          .state = sample_state(12),
          .tensors = {{"a", {4, 2}, DType::bf16}, {"b", {3}, DType::f64}},
          .shards = {{"rank-0000.h5",
                      400,
                      digest_of("x"),
                      {{"a", 0, 3, 100, digest_of("y")}, {"b", 0, 3, 110, digest_of("z")}}},
                     {"rank-0001.h5", 300, digest_of("w"), {{"a", 3, 5, 200, digest_of("v")}}}},
          .whole_size = 1000,
          .whole_digest = digest_of("whole")};
}

TEST(Manifest, ComesBackAsItWasWritten) {
  const auto manifest = small_manifest();
  const auto back = parse_manifest(to_text(manifest));
  EXPECT_EQ(back.step, 12);
  EXPECT_EQ(back.attempt, 3);
  EXPECT_EQ(back.ranks, 2);
  EXPECT_EQ(back.shards, manifest.shards);
  EXPECT_EQ(back.whole_size, 1000);
  EXPECT_EQ(back.whole_digest, manifest.whole_digest);
  ASSERT_EQ(back.tensors.size(), 2u);
  EXPECT_EQ(back.tensors[0].shape, (Shape{4, 2}));
  EXPECT_EQ(back.tensors[0].dtype, DType::bf16);
  EXPECT_TRUE(difference_of(back.state, manifest.state).empty());
  EXPECT_TRUE(std::signbit(back.state.numbers.at("best")[1]));
  EXPECT_EQ(to_text(back), to_text(manifest));
}

TEST(Manifest, NumbersKeepEveryBit) {
  Manifest manifest = small_manifest();
  std::vector<double> values = {0.1,
                                1.0 / 3,
                                std::numeric_limits<double>::min(),
                                std::numeric_limits<double>::max(),
                                std::numeric_limits<double>::denorm_min(),
                                -HUGE_VAL};
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const double value = std::bit_cast<double>(i * 0x9e3779b97f4a7c15u);
    if (!std::isnan(value)) values.push_back(value);
  }
  manifest.state.numbers["values"] = values;
  manifest.state.integers["seed"] = {std::numeric_limits<std::int64_t>::min(),
                                     std::numeric_limits<std::int64_t>::max()};
  EXPECT_TRUE(difference_of(parse_manifest(to_text(manifest)).state, manifest.state).empty());
}

TEST(Manifest, AnyFlippedBitAndAnyCutIsNoticed) {
  const auto text = to_text(small_manifest());
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    auto damaged = text;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_THROW(parse_manifest(damaged), Error) << "bit " << bit;
  }
  for (std::size_t length = 0; length < text.size(); ++length) {
    EXPECT_THROW(parse_manifest(text.substr(0, length)), Error) << "length " << length;
  }
  EXPECT_THROW(parse_manifest(text + " "), Error);
}

TEST(Manifest, RefusesWhatContradictsItself) {
  const auto refused = [](auto change) -> std::string {
    auto manifest = small_manifest();
    change(manifest);
    try {
      parse_manifest(to_text(manifest));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refused([](Manifest&) {}), "");
  EXPECT_EQ(refused([](Manifest& m) { m.shards[1].pieces.clear(); }),
            "no shard holds element 3 of tensor a [4, 2]");
  EXPECT_EQ(refused([](Manifest& m) { m.shards[1].pieces[0].offset = 4; }),
            "no shard holds element 3 of tensor a [4, 2]");
  EXPECT_EQ(refused([](Manifest& m) { m.shards[1].pieces[0].count = 4; }),
            "no shard holds element 7 of tensor a [4, 2]");
  EXPECT_EQ(refused([](Manifest& m) { m.shards[1].pieces[0].count = 6; }),
            "tensor a [4, 2] is stored beyond its last element");
  EXPECT_EQ(refused([](Manifest& m) { m.shards[1].pieces[0].offset = 2; }),
            "tensor a is stored twice from element 2 on, the second time in rank-0001.h5");
  EXPECT_EQ(refused([](Manifest& m) { m.shards[0].pieces[1].position = 105; }),
            "pieces overlap in rank-0000.h5 at byte 105");
  EXPECT_EQ(refused([](Manifest& m) { m.shards[0].size = 120; }),
            "the pieces of rank-0000.h5 go beyond its end");
  EXPECT_EQ(refused([](Manifest& m) { m.tensors.erase(m.tensors.begin()); }),
            "rank-0000.h5 holds a piece of a, which is not listed");
}

TEST(Manifest, IsNotTakenForASidecarNorTheOtherWayRound) {
  const auto complaint = [](auto parse) -> std::string {
    try {
      parse();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(complaint([] { parse_sidecar(to_text(small_manifest())); }), "it is not a smlp shard");
  EXPECT_EQ(complaint([] { parse_manifest(to_text(Sidecar{})); }), "it is not a smlp checkpoint");
}

TEST(SparseBytes, HolesAreZeros) {
  SparseBytes bytes;
  bytes.write(10000, std::as_bytes(std::span("x", 1)));
  std::vector<std::byte> read(10001, std::byte{7});
  bytes.read(0, read);
  EXPECT_EQ(read.back(), std::byte{'x'});
  read.pop_back();
  EXPECT_EQ(read, std::vector<std::byte>(10000));
}

TEST(DiskFile, SaysThatAFileIsCutOff) {
  const Scratch scratch;
  write_file(scratch.root() / "file", "0123456789");
  std::vector<std::byte> bytes(8);
  const auto file = DiskFile::open(scratch.root() / "file");
  EXPECT_NO_THROW(file.read_at(bytes, 2));
  try {
    file.read_at(bytes, 3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("file ends at byte 10: it was cut off"), std::string::npos) << error.what();
  }
}

TEST(Names, PublishedTemporaryAndAside) {
  EXPECT_EQ(checkpoint_name(120), "step-00000120");
  EXPECT_EQ(step_of_checkpoint("step-00000120"), 120);
  EXPECT_EQ(step_of_checkpoint("step-123456789"), 123456789);
  for (const auto* name : {"step-120", "step-00000120.tmp", "step-0000012x", "step-", "xstep-00000120",
                           "step-00000120.aside-1", "step--0000012"}) {
    EXPECT_FALSE(step_of_checkpoint(name)) << name;
  }
  EXPECT_EQ(step_of_aside("step-00000120.aside-2"), 120);
  EXPECT_FALSE(step_of_aside("step-00000120"));
  EXPECT_FALSE(step_of_aside("step-00000120.aside-"));
  EXPECT_TRUE(is_temporary(temporary_name(120, 3)));
  EXPECT_EQ(temporary_name(120, 3), "step-00000120.attempt-0003.tmp");
  EXPECT_FALSE(is_temporary("notes.tmp"));
  EXPECT_FALSE(is_temporary("step-00000120"));
}

}  // namespace smlp::test
