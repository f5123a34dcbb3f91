// Under mpirun: the rank whose numbers are not finite is named, though the sums are not finite on any.
#include "worker/not_finite.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/comm/ranks.h"
#include "worker/engine.h"

namespace smlp {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

int ranks() { return test::world().size(); }
int me() { return test::world().rank(); }
std::string rank_of_this_host(int rank) { return fmt::format("of rank {} (", rank); }

TEST(NotFinite, NamesTheRankWhoseLossItIsThoughGradientsOfOthersAreTooByTheExchange) {
  const int culprit = ranks() - 1;
  const auto words = name_not_finite(test::world(), {.loss = me() != culprit, .gradient = false});
  EXPECT_THAT(words, StartsWith("with the loss " + rank_of_this_host(culprit)));
}

TEST(NotFinite, NamesTheRankOfTheGradientOrAllOrNone) {
  const auto words = name_not_finite(test::world(), {.gradient = me() != 0});
  EXPECT_THAT(words, StartsWith("with the gradient " + rank_of_this_host(0)));
  if (ranks() > 1) {
    EXPECT_EQ(name_not_finite(test::world(), {.loss = false}), "with the loss of all ranks");
  }
  EXPECT_EQ(name_not_finite(test::world(), {}), "though each rank's own are");
}

// Once nobody could say which rank it was: after the sums the gradients of all were alike.
TEST(NotFinite, AGradientIsLookedAtBeforeItIsSummed) {
  JobConfig job;
  job.model.context = 8;
  job.model.width = job.model.hidden = 16;
  job.model.dense_blocks = 2;
  job.model.kind = "gmlp";
  job.model.sparse_blocks = 0;
  job.model.vocabulary = 64;
  job.train.micro_batch = 1;
  job.train.global_batch = ranks();
  Engine engine(job, make_backend(job), ProcessGrid::cut(test::world().split(0, me()), 1), true);
  const int culprit = ranks() - 1;
  const std::vector<std::int32_t> tokens(8, 3);
  const auto poisoned = [&](std::int64_t, std::int64_t, std::int64_t, const std::int32_t*& t, const std::int32_t*& u) {
    t = u = tokens.data();
    if (me() != culprit) return;
    const auto& grad = engine.store().parameters().front().grad;
    engine.backend().fill(grad.row_range(0, 1), std::numeric_limits<double>::quiet_NaN());
  };
  std::vector<double> flags(1);
  for (const bool watched : {false, true, false}) {
    engine.watch_gradients(watched);
    const auto result = engine.train_step(1, 0, poisoned, flags, [] {});
    EXPECT_FALSE(result.updated);
    EXPECT_TRUE(result.own_finite.loss);
    EXPECT_EQ(result.own_finite.gradient, !watched || me() != culprit);
  }
}

}  // namespace
}  // namespace smlp
