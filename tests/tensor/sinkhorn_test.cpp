// Shares of tokens and experts: the reference's numbers, sums, and what must not change or break them.
#include "tensor/sinkhorn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/random.h"

namespace smlp {
namespace {

struct Scaling {
  std::vector<double> shares;
  int rounds = 0;
};

Scaling shares_of(const std::vector<double>& logits, std::size_t experts, int limit = Sinkhorn::round_limit) {
  Sinkhorn sinkhorn;
  Scaling outcome{std::vector<double>(logits.size(), 77), 0};
  const auto tokens = static_cast<std::int64_t>(logits.size() / experts), width = static_cast<std::int64_t>(experts);
  outcome.rounds = sinkhorn.scale(logits, tokens, width, outcome.shares, limit);
  auto again = logits;
  EXPECT_EQ(sinkhorn.scale(again, tokens, width, again, limit), outcome.rounds);
  EXPECT_EQ(again, outcome.shares) << "in place, and the same call again";
  return outcome;
}

std::vector<double> random_logits(std::size_t count, std::uint64_t seed, double scale = 1) {
  const RandomStream stream(seed, "logits");
  std::vector<double> logits(count);
  for (std::size_t i = 0; i < count; ++i) logits[i] = scale * stream.normal(i);
  return logits;
}

double of_expert(const Scaling& outcome, std::size_t expert, std::size_t experts) {
  double sum = 0;
  for (std::size_t i = expert; i < outcome.shares.size(); i += experts) sum += outcome.shares[i];
  return sum;
}

TEST(Sinkhorn, GivesTheNumbersOfMegatronsFormula) {
  // Its loop in double precision on the logits of the gates' vectors: 8 rounds to 1e-4.
  const std::vector<double> wanted = {.0825114, .0586315, .0255204, .0494469, .0864214, .0307977,
                                      .0283211, .0668161, .0715323, .1297662, .0205749, .0163181,
                                      .0360841, .0630665, .0675180, .0072036, .0378230, .1216468};
  const auto got = shares_of({2, 1, 0, 1.5, 1.4, .2, .1, .3, .2, 3, .5, .1, 2.5, 2.4, 2.3, 0, 1, 2}, 3);
  EXPECT_EQ(got.rounds, 8);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got.shares[i], wanted[i], 1e-7) << i;
}

TEST(Sinkhorn, SharesAreEvenOverExpertsAndTokens) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const std::size_t experts = 1 + seed % 9, tokens = 1 + seed * 13 % 70;
    const auto got = shares_of(random_logits(tokens * experts, seed, seed % 4 == 0 ? 5 : 1), experts);
    EXPECT_GT(got.rounds, 0) << "met its limit";
    for (std::size_t e = 0; e < experts; ++e) EXPECT_NEAR(of_expert(got, e, experts) * static_cast<double>(experts), 1, 1e-6);
    double all = 0;
    for (const double share : got.shares) all += share;
    EXPECT_NEAR(all, 1, 1e-6);
  }
}

TEST(Sinkhorn, DoesNotChangeWithAConstantAddedToATokenHoweverLarge) {
  auto logits = random_logits(20 * 4, 1);
  const auto before = shares_of(logits, 4);
  for (std::size_t i = 0; i < 40; ++i) logits[i] += i < 20 ? 2000 : -2000;  // exp() alone would be infinite, or zero
  const auto after = shares_of(logits, 4);
  EXPECT_EQ(after.rounds, before.rounds);
  for (std::size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(after.shares[i], before.shares[i], 1e-12);
}

TEST(Sinkhorn, EndsOnWhatIsTiedBrokenOrOutOfReach) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  for (const double share : shares_of(std::vector<double>(12, 3), 4).shares) EXPECT_NEAR(share, 1.0 / 12, 1e-8);
  const auto broken = shares_of({nan, 1, 2, inf, 0, 1, nan, nan, nan, -inf, -inf, -inf}, 3);
  for (const double share : broken.shares) EXPECT_TRUE(share >= 0 && share <= 1) << share;
  EXPECT_EQ(broken.shares[0], 0);
  std::vector<double> one_sided;  // nobody can pay for the second expert
  for (int s = 0; s < 16; ++s) one_sided.insert(one_sided.end(), {0, -900});
  for (const double share : shares_of(one_sided, 2).shares) EXPECT_TRUE(std::isfinite(share));
  EXPECT_EQ(shares_of(random_logits(32, 3, 9), 4, 2).rounds, -2) << "a limit that was met is told";
  EXPECT_TRUE(shares_of({}, 4).shares.empty());
}

}  // namespace
}  // namespace smlp
