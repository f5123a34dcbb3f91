// Scales exp(logits) by rows and columns until every token gives one share and every expert takes an equal one
// (Sinkhorn and Knopp 1967, as Megatron-LM balances tokens with it). A pure function on host memory, in f64 and in a
// fixed order of sums.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace smlp {

// Owns the working memory, so that a second call of the same size allocates nothing. Not shared by threads.
class Sinkhorn {
 public:
  static constexpr double tolerance = 1e-4;  // of the mean move of a column's factor
  static constexpr int round_limit = 1000;

  // logits and shares [tokens, experts], row by row; may be the same memory. Each row's largest logit is taken off
  // first, which the row's factor makes up for. What is not finite shares nothing. Returns the rounds; negative when
  // they met the limit.
  int scale(std::span<const double> logits, std::int64_t tokens, std::int64_t experts, std::span<double> shares,
            int limit = round_limit);

 private:
  std::vector<double> row_, column_, sum_;  // factors; sums of columns
};

}  // namespace smlp
