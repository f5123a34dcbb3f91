// Balanced assignment of tokens to experts by an auction (BASE layers): every expert gets the same number of tokens,
// and the total score is within a small epsilon a token of the best possible. A pure function on host memory,
// deterministic: the lower index wins every tie. Works in f64 whatever the type of the scores was.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace smlp {

// Owns the working memory, so that a second call of the same size allocates nothing. Not shared by threads.
class BalancedAssignment {
 public:
  static constexpr int round_limit = 4000;

  // scores [tokens, experts], row by row. token_of_slot [experts, capacity], capacity = ceil(tokens / experts):
  // the tokens of each expert in ascending order, then -1. Every token gets exactly one slot; experts get
  // floor or ceil(tokens / experts). NaN and infinities count as the smallest finite score. Returns the rounds of
  // the auction; negative when it met its limit and the rest was assigned greedily.
  int assign(std::span<const double> scores, std::int64_t tokens, std::int64_t experts,
             std::span<std::int32_t> token_of_slot, int limit = round_limit);

 private:
  void load(std::span<const double> scores);
  void choose_and_bid(std::int32_t worker, bool eager);
  bool auction(int round);
  void finish_greedily();
  void write(std::span<std::int32_t> token_of_slot);

  // Jobs are the tokens and then dummies of equal score, so that the capacity divides them; a worker (expert) takes
  // one dummy at most.
  std::int64_t tokens_ = 0, jobs_ = 0, workers_ = 0, capacity_ = 0;
  double epsilon_ = 0, highest_ = 0;
  std::vector<double> score_, value_;  // [workers, jobs]
  std::vector<double> cost_, best_bid_;  // [jobs]
  std::vector<std::int32_t> bidder_, holder_, owner_, order_;
  std::vector<std::int64_t> room_;  // [workers]
};

}  // namespace smlp
