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
  static constexpr int round_limit = 1000;

  // scores [tokens, experts], row by row. token_of_slot [experts, capacity], capacity = ceil(tokens / experts):
  // the tokens of each expert in ascending order, then -1. Every token gets exactly one slot. Where the experts do not
  // divide the tokens, those that fewest tokens like best take one token fewer (ties: the higher index). NaN and
  // infinities count as the smallest finite score. Returns the rounds of the auction; negative when it met its limit
  // and the rest was assigned greedily.
  int assign(std::span<const double> scores, std::int64_t tokens, std::int64_t experts,
             std::span<std::int32_t> token_of_slot, int limit = round_limit);

 private:
  struct Candidate {
    double value;
    std::int32_t token;
  };
  void load(std::span<const double> scores);
  void set_rooms();
  bool auction(int round);
  void bid(std::int32_t expert, int round);
  std::size_t collect(std::int32_t expert, double least, double held_value);
  void finish_greedily();
  void write(std::span<std::int32_t> token_of_slot);

  std::int64_t tokens_ = 0, experts_ = 0, capacity_ = 0;
  double epsilon_ = 0, highest_ = 0;
  std::vector<double> score_;             // [experts, tokens]
  std::vector<double> cost_, best_bid_;   // [tokens]
  std::vector<std::int32_t> bidder_;      // who bids most in this round
  std::vector<std::int32_t> holder_;      // who did in the round before
  std::vector<std::int32_t> owner_;       // whose list the token is in
  std::vector<std::int64_t> room_, used_;  // [experts]: places, and places taken
  std::vector<double> threshold_;         // [experts]: value of the best token outside of the list
  std::vector<Candidate> candidates_;
  std::vector<double> values_;
};

}  // namespace smlp
