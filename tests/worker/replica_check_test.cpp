// Under mpirun: copies of tensors on several ranks, one of them with a flipped bit.
#include "worker/replica_check.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/comm/ranks.h"
#include "worker/engine.h"

namespace smlp {
namespace {

using testing::HasSubstr;

JobConfig small_job() {
  JobConfig job;
  job.model.context = 8;
  job.model.width = job.model.hidden = 16;
  job.model.dense_blocks = job.model.sparse_blocks = 1;
  job.model.vocabulary = 64;
  job.train.precision = "bf16";
  job.routing.group_sequences = job.train.micro_batch;
  return job;
}

class ReplicaCheck : public testing::Test {
 protected:
  explicit ReplicaCheck(int expert_ranks = test::world().size() % 2 == 0 ? 2 : 1) {
    auto job = small_job();
    engine_ = std::make_unique<Engine>(job, make_backend(job),
                                       ProcessGrid::cut(test::world().split(0, test::world().rank()), expert_ranks), true);
    pieces_ = engine_->pieces(true);
  }
  std::string compare() { return compare_replicas(engine_->backend(), engine_->grid(), pieces_); }
  // The last bit of the last byte, on one rank.
  void flip(const std::string& name, int rank) {
    if (test::world().rank() != rank) return;
    for (const auto& piece : pieces_) {
      if (piece.name == name) static_cast<unsigned char*>(piece.local.data)[piece.local.bytes() - 1] ^= 1;
    }
  }
  static int ranks() { return test::world().size(); }

  std::unique_ptr<Engine> engine_;
  std::vector<Piece> pieces_;
};

TEST_F(ReplicaCheck, FindsNothingWhereAllIsAlike) { EXPECT_EQ(compare(), ""); }

TEST_F(ReplicaCheck, NamesTensorAndRankOfAFlippedBit) {
  const int culprit = ranks() - 1;
  for (const std::string name : {"embed.weight", "adam.m/embed.weight", "adam.master/embed.weight"}) {
    bool known = false;
    for (const auto& piece : pieces_) known = known || piece.name == name;
    ASSERT_TRUE(known) << name << ": " << pieces_[0].name;
    flip(name, culprit);
    const auto found = compare();
    if (ranks() == 1) {
      EXPECT_EQ(found, "");
    } else if (ranks() == 2) {
      EXPECT_THAT(found, HasSubstr(fmt::format("hold different '{}'", name)));
      EXPECT_THAT(found, testing::AllOf(HasSubstr("0 ("), HasSubstr("1 ("), HasSubstr("can't be told")));
    } else {
      EXPECT_THAT(found, HasSubstr(fmt::format("rank {} (", culprit)));
      EXPECT_THAT(found, HasSubstr(fmt::format("holds another '{}' than the {} that agree", name, ranks() - 1)));
    }
    flip(name, culprit);
    EXPECT_EQ(compare(), "");
  }
}

// Four ranks in expert groups of two: ranks 1 and 3 hold the same slice, 0 and 2 another one.
TEST_F(ReplicaCheck, ComparesASliceWithItsOwnReplicasAlone) {
  if (ranks() != 4) GTEST_SKIP() << "four ranks";
  std::string name;
  for (const auto& piece : pieces_) {
    if (name.empty() && piece.local.size() != piece.global_shape.size()) name = piece.name;
  }
  ASSERT_NE(name, "");
  flip(name, 3);
  const auto found = compare();
  EXPECT_THAT(found, testing::AllOf(HasSubstr(name), HasSubstr("1 ("), HasSubstr("3 (")));
  EXPECT_THAT(found, testing::Not(testing::AnyOf(HasSubstr("0 ("), HasSubstr("2 ("))));
}

TEST_F(ReplicaCheck, LeavesWhatOneRankAloneHoldsOut) {
  if (ranks() != 2) GTEST_SKIP() << "two ranks, one expert group";
  for (const auto& piece : pieces_) {
    if (piece.local.size() != piece.global_shape.size()) flip(piece.name, 1);
  }
  EXPECT_EQ(compare(), "");
}

// Each rank read all that it holds from its device, two thirds of it for nothing.
TEST_F(ReplicaCheck, ReadsNothingThatNoOtherRankHolds) {
  if (ranks() != 2) GTEST_SKIP() << "two ranks, one expert group";
  for (auto& piece : pieces_) {
    if (piece.local.size() != piece.global_shape.size()) piece.local.data = nullptr;
  }
  EXPECT_EQ(compare(), "");
}

}  // namespace
}  // namespace smlp
