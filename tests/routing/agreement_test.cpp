#include "routing/agreement.h"

#include <gtest/gtest.h>

namespace smlp {
namespace {

class Agreement : public testing::Test {
 protected:
  // Tokens of each expert in turn; -1: an empty slot.
  RoutePlan plan(const std::vector<std::vector<std::int32_t>>& experts) {
    RoutePlan made;
    std::vector<std::int32_t> slots;
    for (const auto& tokens : experts) {
      slots.insert(slots.end(), tokens.begin(), tokens.end());
      made.rows_of_expert.push_back(std::ssize(tokens));
    }
    made.token_of_slot = arena.take({std::ssize(slots)}, DType::i32);
    backend->upload(slots.data(), made.token_of_slot);
    return made;
  }
  std::int64_t alike(const RoutePlan& a, const RoutePlan& b, std::int64_t rows) {
    EXPECT_EQ(comparison.tokens_sent_alike(*backend, a, b, rows), comparison.tokens_sent_alike(*backend, b, a, rows));
    return comparison.tokens_sent_alike(*backend, a, b, rows);
  }
  std::unique_ptr<Backend> backend = make_cpu_backend();
  Arena arena{*backend};
  PlanComparison comparison;
};

TEST_F(Agreement, CountsTokensAtTheSameExpert) {
  EXPECT_EQ(alike(plan({{0, 1}, {2, 3}}), plan({{0, 1}, {2, 3}}), 4), 4);
  EXPECT_EQ(alike(plan({{0, 1}, {2, 3}}), plan({{1, 0}, {3, 2}}), 4), 4) << "places at an expert do not matter";
  EXPECT_EQ(alike(plan({{0, 1}, {2, 3}}), plan({{2, 3}, {0, 1}}), 4), 0);
  EXPECT_EQ(alike(plan({{0, 1}, {2, 3}}), plan({{0, 1, 2}, {3}}), 4), 3) << "an evaluation is not balanced";
}

TEST_F(Agreement, EmptySlotsAndDroppedTokens) {
  EXPECT_EQ(alike(plan({{0, -1}, {2, 1}}), plan({{0}, {1, 2}}), 3), 3);
  EXPECT_EQ(alike(plan({{0, -1}, {2, -1}}), plan({{0}, {1, 2}}), 3), 2) << "token 1 was dropped by one of them";
  EXPECT_EQ(alike(plan({{0}, {-1}}), plan({{0}, {}}), 3), 3) << "dropped by both";
  EXPECT_EQ(alike(plan({{}, {}}), plan({{}, {}}), 0), 0);
}

TEST_F(Agreement, TwoExpertsOfATokenMustBothBeTheSame) {
  EXPECT_EQ(alike(plan({{0, 1}, {0}, {1}}), plan({{0, 1}, {0}, {1}}), 2), 2);
  EXPECT_EQ(alike(plan({{0, 1}, {0}, {1}}), plan({{0, 1}, {1}, {0}}), 2), 0);
  EXPECT_EQ(alike(plan({{0, 1}, {0}, {1}}), plan({{0, 1}, {0}, {}}), 2), 1);
}

}  // namespace
}  // namespace smlp
