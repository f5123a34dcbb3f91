// The auction: golden vectors, and properties on random, tied, clustered and broken scores.
#include "tensor/balanced_assignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/random.h"
#include "tensor/exact_assignment.h"

namespace smlp {
namespace {

struct Outcome {
  std::vector<int> owner;
  int rounds = 0;
  double total = 0;
};

// scores by token, [tokens, experts]; checks that the answer is a balanced partition.
Outcome assign(const std::vector<double>& scores, std::int64_t tokens, std::int64_t experts,
               int limit = BalancedAssignment::round_limit) {
  BalancedAssignment assignment;
  const std::int64_t capacity = (tokens + experts - 1) / experts;
  std::vector<std::int32_t> slots(static_cast<std::size_t>(capacity * experts), 77);
  Outcome outcome{std::vector<int>(static_cast<std::size_t>(tokens), -1), 0, 0};
  outcome.rounds = assignment.assign(scores, tokens, experts, slots, limit);
  std::int64_t placed = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    std::int64_t size = 0;
    for (std::int64_t i = 0; i < capacity; ++i) {
      const std::int32_t token = slots[static_cast<std::size_t>(e * capacity + i)];
      if (token < 0) {
        EXPECT_EQ(token, -1);
        continue;
      }
      EXPECT_EQ(size, i) << "empty slots come last";
      if (i > 0) {
        EXPECT_GT(token, slots[static_cast<std::size_t>(e * capacity + i - 1)]) << "tokens ascend";
      }
      EXPECT_EQ(outcome.owner[static_cast<std::size_t>(token)], -1) << "token " << token << " twice";
      outcome.owner[static_cast<std::size_t>(token)] = static_cast<int>(e);
      outcome.total += scores[static_cast<std::size_t>(token * experts + e)];
      ++size;
    }
    EXPECT_TRUE(size == tokens / experts || size == capacity) << "expert " << e << " has " << size;
    placed += size;
  }
  EXPECT_EQ(placed, tokens);
  std::vector<std::int32_t> again(slots.size());
  EXPECT_EQ(assignment.assign(scores, tokens, experts, again, limit), outcome.rounds);
  EXPECT_EQ(again, slots) << "the same call, the same answer";
  return outcome;
}

// From [experts, tokens] as papers write it.
std::vector<double> by_token(const std::vector<double>& by_expert, std::size_t experts) {
  const std::size_t tokens = by_expert.size() / experts;
  std::vector<double> scores(by_expert.size());
  for (std::size_t e = 0; e < experts; ++e) {
    for (std::size_t t = 0; t < tokens; ++t) scores[t * experts + e] = by_expert[e * tokens + t];
  }
  return scores;
}

std::vector<double> random_scores(std::uint64_t seed, std::int64_t tokens, std::int64_t experts, double favoured = 0) {
  const RandomStream random(seed, "scores");
  std::vector<double> scores(static_cast<std::size_t>(tokens * experts));
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = random.normal(i) + (i % static_cast<std::size_t>(experts) == 0 ? favoured : 0);
  }
  return scores;
}

double epsilon_of(const std::vector<double>& scores) {
  const auto [least, most] = std::minmax_element(scores.begin(), scores.end());
  return std::max(1e-4, (*most - *least) / 50);
}

// The greatest total of an assignment with as many tokens for each expert as `owner` has, by the Hungarian method on
// one row a slot (shortest augmenting paths with potentials).
double best_total(const std::vector<double>& scores, std::int64_t tokens, std::int64_t experts,
                  const std::vector<int>& owner) {
  std::vector<int> expert_of_slot = owner;
  std::sort(expert_of_slot.begin(), expert_of_slot.end());
  const auto cost = [&](std::int64_t slot, std::int64_t token) {
    return -scores[static_cast<std::size_t>(token * experts + expert_of_slot[static_cast<std::size_t>(slot)])];
  };
  const double infinity = std::numeric_limits<double>::infinity();
  const auto size = static_cast<std::size_t>(tokens + 1);
  std::vector<double> u(size, 0), v(size, 0);
  std::vector<std::size_t> match(size, 0), way(size, 0);
  for (std::size_t i = 1; i < size; ++i) {
    match[0] = i;
    std::size_t column = 0;
    std::vector<double> least(size, infinity);
    std::vector<bool> used(size, false);
    do {
      used[column] = true;
      const std::size_t row = match[column];
      double delta = infinity;
      std::size_t next = 0;
      for (std::size_t j = 1; j < size; ++j) {
        if (used[j]) continue;
        const double reduced = cost(static_cast<std::int64_t>(row - 1), static_cast<std::int64_t>(j - 1)) - u[row] - v[j];
        if (reduced < least[j]) {
          least[j] = reduced;
          way[j] = column;
        }
        if (least[j] < delta) {
          delta = least[j];
          next = j;
        }
      }
      for (std::size_t j = 0; j < size; ++j) {
        if (used[j]) {
          u[match[j]] += delta;
          v[j] -= delta;
        } else {
          least[j] -= delta;
        }
      }
      column = next;
    } while (match[column] != 0);
    while (column != 0) {
      const std::size_t before = way[column];
      match[column] = match[before];
      column = before;
    }
  }
  double total = 0;
  for (std::size_t j = 1; j < size; ++j) {
    total -= cost(static_cast<std::int64_t>(match[j] - 1), static_cast<std::int64_t>(j - 1));
  }
  return total;
}

TEST(BalancedAssignment, GoldenVectors) {
  auto got = assign(by_token({.9, .8, .1, .2, .7, .95, .3, .15}, 2), 4, 2);
  EXPECT_EQ(got.owner, (std::vector<int>{0, 1, 1, 0}));
  EXPECT_NEAR(got.total, 2.35, 1e-12);
  got = assign(by_token({5, 4, 3, 2, 1, 0, 4.5, 4.2, 1, .5, .4, .3, 3, 3.5, 2.9, 2.2, .1, .05}, 3), 6, 3);
  EXPECT_EQ(got.owner, (std::vector<int>{0, 1, 2, 2, 0, 1}));
  EXPECT_EQ(got.rounds, 4);
  EXPECT_NEAR(got.total, 15.6, 1e-12);
  std::vector<double> waves;
  for (int w = 1; w <= 3; ++w) {
    for (int j = 1; j <= 9; ++j) waves.push_back(std::sin(w * j));
  }
  got = assign(by_token(waves, 3), 9, 3);
  EXPECT_EQ(got.owner, (std::vector<int>{1, 0, 2, 1, 2, 0, 1, 0, 2}));
  EXPECT_EQ(got.rounds, 5);
  EXPECT_NEAR(got.total, 6.52729, 1e-5);
  got = assign(std::vector<double>(64, 0.3), 16, 4);
  EXPECT_EQ(got.owner, (std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3}));
  EXPECT_EQ(got.rounds, 4);
}

double exact_total(const std::vector<double>& scores, std::int64_t tokens, std::int64_t experts,
                   const std::vector<int>& owner) {
  std::vector<std::int64_t> room(static_cast<std::size_t>(experts), 0);
  for (const int e : owner) ++room[static_cast<std::size_t>(e)];
  const auto best = assign_exactly(scores, tokens, room);
  double total = 0;
  for (std::size_t t = 0; t < best.size(); ++t) {
    --room[static_cast<std::size_t>(best[t])];
    total += scores[t * static_cast<std::size_t>(experts) + static_cast<std::size_t>(best[t])];
  }
  EXPECT_EQ(room, std::vector<std::int64_t>(room.size(), 0));
  return total;
}

TEST(ExactAssignment, AgreesWithTheHungarianMethod) {
  for (std::uint64_t seed = 0; seed < 80; ++seed) {
    const std::int64_t experts = 1 + static_cast<std::int64_t>(seed % 9), tokens = 1 + static_cast<std::int64_t>(seed * 11 % 60);
    auto scores = random_scores(seed, tokens, experts, seed % 3 == 0 ? 4 : 0);
    if (seed % 4 == 1) {
      for (auto& s : scores) s = std::round(s);
    }
    const auto owner = assign(scores, tokens, experts).owner;
    EXPECT_NEAR(exact_total(scores, tokens, experts, owner), best_total(scores, tokens, experts, owner), 1e-9) << seed;
  }
}

TEST(BalancedAssignment, IsWithinEpsilonOfTheBestAtTheSizeOfAModel) {
  const std::int64_t tokens = 2048, experts = 32;
  const auto centres = random_scores(1, 16, experts), noise = random_scores(2, tokens, experts);
  for (const bool clustered : {false, true}) {
    auto scores = noise;
    for (std::size_t i = 0; clustered && i < scores.size(); ++i) scores[i] = centres[i / 32 % 16 * 32 + i % 32] + 0.05 * noise[i];
    const auto got = assign(scores, tokens, experts);
    EXPECT_GT(got.rounds, 0);
    const double best = exact_total(scores, tokens, experts, got.owner);
    EXPECT_LE(got.total, best + 1e-9);
    EXPECT_GE(got.total, best - epsilon_of(scores) * static_cast<double>(tokens));
  }
}

TEST(BalancedAssignment, IsWithinEpsilonOfTheBest) {
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    const std::int64_t experts = 2 + static_cast<std::int64_t>(seed % 7), tokens = 1 + static_cast<std::int64_t>(seed * 7 % 40);
    const auto scores = random_scores(seed, tokens, experts, seed % 3 == 0 ? 5 : 0);
    const auto got = assign(scores, tokens, experts);
    EXPECT_GT(got.rounds, 0) << "seed " << seed;
    const double best = best_total(scores, tokens, experts, got.owner);
    EXPECT_LE(got.total, best + 1e-9) << "seed " << seed;
    EXPECT_GE(got.total, best - epsilon_of(scores) * static_cast<double>(tokens) - 1e-9)
        << "seed " << seed << ": " << tokens << " tokens, " << experts << " experts";
  }
}

TEST(BalancedAssignment, TheLeastLikedExpertsTakeOneTokenFewer) {
  std::vector<double> scores(10 * 4, 0);
  const int liked[] = {3, 3, 3, 3, 0, 0, 0, 2, 2, 2};  // nobody likes 1; 0 and 2 tie
  for (std::size_t t = 0; t < 10; ++t) scores[t * 4 + static_cast<std::size_t>(liked[t])] = 1;
  const auto owner = assign(scores, 10, 4).owner;
  const auto size = [&](int e) { return std::count(owner.begin(), owner.end(), e); };
  EXPECT_EQ(size(0), 3);
  EXPECT_EQ(size(1), 2);
  EXPECT_EQ(size(2), 2);
  EXPECT_EQ(size(3), 3);
}

TEST(BalancedAssignment, EndsOnEverySizeWithOneToManyExperts) {
  for (const std::int64_t experts : {1, 2, 3, 8, 32}) {
    for (const std::int64_t tokens : {0, 1, 2, 3, 7, 18, 31, 33, 64, 130}) assign(random_scores(1, tokens, experts), tokens, experts);
  }
}

TEST(BalancedAssignment, TiesGoToTheLowerIndexAndStillEnd) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::int64_t experts = 2 + static_cast<std::int64_t>(seed % 5), tokens = experts * (1 + static_cast<std::int64_t>(seed % 6));
    auto scores = random_scores(seed, tokens, experts);
    for (auto& s : scores) s = std::round(s);
    assign(scores, tokens, experts);
  }
  // Every token the same: experts share them in order of index.
  std::vector<double> same;
  for (int t = 0; t < 12; ++t) same.insert(same.end(), {0.3, 0.1, 0.2});
  EXPECT_EQ(assign(same, 12, 3).owner, (std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}));
}

TEST(BalancedAssignment, ClustersOfLikeTokens) {
  const std::int64_t tokens = 1024, experts = 16;
  const auto centres = random_scores(1, 7, experts), noise = random_scores(2, tokens, experts);
  for (const double spread : {0.0, 1e-6, 1e-3, 0.1}) {
    std::vector<double> scores(noise.size());
    for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = centres[i / 16 % 7 * 16 + i % 16] + spread * noise[i];
    const auto got = assign(scores, tokens, experts);
    EXPECT_GT(got.rounds, 0) << "spread " << spread;
  }
}

TEST(BalancedAssignment, ReplacesWhatIsNotFinite) {
  auto scores = random_scores(3, 20, 4);
  auto replaced = scores;
  const double least = *std::min_element(scores.begin(), scores.end());
  const double broken[] = {std::nan(""), INFINITY, -INFINITY};
  for (std::size_t i = 0; i < 12; ++i) {
    scores[i * 5] = broken[i % 3];
    replaced[i * 5] = least;
  }
  double lowest = INFINITY;
  for (const double s : scores) {
    if (std::isfinite(s)) lowest = std::min(lowest, s);
  }
  for (std::size_t i = 0; i < 12; ++i) replaced[i * 5] = lowest;
  EXPECT_EQ(assign(scores, 20, 4).owner, assign(replaced, 20, 4).owner);
  assign(std::vector<double>(40, std::nan("")), 10, 4);
}

TEST(BalancedAssignment, AddingAConstantChangesNothing) {
  const auto scores = random_scores(5, 60, 6);
  auto shifted = scores;
  for (auto& s : shifted) s += 3;
  EXPECT_EQ(assign(scores, 60, 6).owner, assign(shifted, 60, 6).owner);
}

TEST(BalancedAssignment, PermutingTokensPermutesOwners) {
  const std::int64_t tokens = 48, experts = 6;
  const auto scores = random_scores(9, tokens, experts);
  std::vector<double> turned(scores.size());
  const auto place = [&](std::int64_t t) { return static_cast<std::int64_t>(permute(static_cast<std::uint64_t>(t), 48, 4)); };
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::copy_n(scores.begin() + t * experts, experts, turned.begin() + place(t) * experts);
  }
  const auto before = assign(scores, tokens, experts).owner, after = assign(turned, tokens, experts).owner;
  for (std::int64_t t = 0; t < tokens; ++t) {
    EXPECT_EQ(after[static_cast<std::size_t>(place(t))], before[static_cast<std::size_t>(t)]);
  }
}

TEST(BalancedAssignment, FinishesGreedilyAtItsLimit) {
  for (const int limit : {0, 1, 2, 3}) {
    for (const std::int64_t tokens : {48, 50}) {
      const auto got = assign(random_scores(7, tokens, 6), tokens, 6, limit);
      EXPECT_LT(got.rounds, 0);
    }
  }
  // Room for all: each token goes where it likes best.
  std::vector<double> scores(24 * 4, 0.1);
  std::vector<int> wanted;
  for (std::size_t t = 0; t < 24; ++t) {
    wanted.push_back(static_cast<int>((t + 1) % 4));
    scores[t * 4 + (t + 1) % 4] = 0.9;
  }
  EXPECT_EQ(assign(scores, 24, 4, 0).owner, wanted);
}

}  // namespace
}  // namespace smlp
