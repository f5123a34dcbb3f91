#include "tensor/balanced_assignment.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace smlp {

namespace {
constexpr int eager_rounds = 100;  // while holders value most what they hold and bid the least for it
constexpr std::int32_t nobody = -1, contested = -2;
constexpr double infinity = std::numeric_limits<double>::infinity();

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
}  // namespace

int BalancedAssignment::assign(std::span<const double> scores, std::int64_t tokens, std::int64_t experts,
                               std::span<std::int32_t> token_of_slot, int limit) {
  tokens_ = tokens;
  experts_ = experts;
  capacity_ = (tokens + experts - 1) / experts;
  expect(static_cast<std::int64_t>(scores.size()) == tokens * experts, "assignment: scores are tokens x experts");
  expect(static_cast<std::int64_t>(token_of_slot.size()) == capacity_ * experts,
         "assignment: slots are experts x capacity");
  if (tokens == 0) return 0;
  load(scores);
  set_rooms();
  int round = 0;
  while (round < limit && !auction(round)) ++round;
  if (round == limit) finish_greedily();
  write(token_of_slot);
  return round == limit ? -std::max(limit, 1) : round + 1;
}

// Transposes the scores and replaces what is not finite.
void BalancedAssignment::load(std::span<const double> scores) {
  score_.resize(scores.size());
  for (auto* of_tokens : {&cost_, &best_bid_, &values_}) of_tokens->assign(index(tokens_), 0);
  for (auto* of_tokens : {&bidder_, &holder_, &owner_}) of_tokens->assign(index(tokens_), nobody);
  candidates_.resize(index(tokens_) + 1);
  threshold_.assign(index(experts_), infinity);
  double least = infinity, most = -infinity;
  for (const double s : scores) {
    if (!std::isfinite(s)) continue;
    least = std::min(least, s);
    most = std::max(most, s);
  }
  if (least > most) least = most = 0;
  for (std::int64_t t = 0; t < tokens_; ++t) {
    const double* from = scores.data() + t * experts_;
    for (std::int64_t e = 0; e < experts_; ++e) score_[index(e * tokens_ + t)] = std::isfinite(from[e]) ? from[e] : least;
  }
  highest_ = most;
  epsilon_ = std::max(1e-4, (most - least) / 50);
}

void BalancedAssignment::set_rooms() {
  room_.assign(index(experts_), capacity_);
  used_.assign(index(experts_), 0);
  const std::int64_t missing = capacity_ * experts_ - tokens_;
  if (missing == 0) return;
  for (std::int64_t t = 0; t < tokens_; ++t) {
    std::int64_t best = 0;
    for (std::int64_t e = 1; e < experts_; ++e) {
      if (score_[index(e * tokens_ + t)] > score_[index(best * tokens_ + t)]) best = e;
    }
    ++used_[index(best)];
  }
  for (std::int64_t i = 0; i < missing; ++i) {
    std::int64_t least = nobody;
    for (std::int64_t e = experts_ - 1; e >= 0; --e) {
      if (room_[index(e)] == capacity_ && (least == nobody || used_[index(e)] < used_[index(least)])) least = e;
    }
    --room_[index(least)];
  }
}

// One round; true when every token is in exactly one expert's list.
bool BalancedAssignment::auction(int round) {
  const bool eager = round > 0 && round < eager_rounds;
  for (std::size_t t = 0; t < holder_.size(); ++t) {
    best_bid_[t] = eager && holder_[t] != nobody ? epsilon_ : 0;
    bidder_[t] = eager ? holder_[t] : nobody;
  }
  std::fill(owner_.begin(), owner_.end(), nobody);
  for (std::int32_t e = 0; e < experts_; ++e) {
    if (room_[index(e)] > 0) bid(e, round);
  }
  if (std::all_of(owner_.begin(), owner_.end(), [](std::int32_t owner) { return owner >= 0; })) return true;
  for (std::size_t t = 0; t < cost_.size(); ++t) cost_[t] += best_bid_[t];
  std::swap(holder_, bidder_);
  return false;
}

// The tokens worth at least `least` to the expert, in order of index, into candidates_; how many.
std::size_t BalancedAssignment::collect(std::int32_t expert, double least, double held_value) {
  const double* score = score_.data() + expert * tokens_;
  const bool at_score = held_value == infinity;
  std::size_t count = 0;
  for (std::size_t t = 0; t < holder_.size(); ++t) {
    const double held = at_score ? score[t] : held_value;
    const double value = holder_[t] == expert ? held : score[t] - cost_[t];
    candidates_[count] = {value, static_cast<std::int32_t>(t)};
    count += value >= least ? 1 : 0;
  }
  return count;
}

// Lists the expert's best tokens, as many as it has room for, and bids for each what it is worth to the expert above
// the best token left out.
void BalancedAssignment::bid(std::int32_t expert, int round) {
  // What it holds is worth most to it at first, and its plain score in late rounds.
  const double held_value = round <= eager_rounds ? highest_ : infinity;
  const auto room = room_[index(expert)];
  double& threshold = threshold_[index(expert)];
  // Prices rise, so the threshold falls, seldom by much: look a little below the last one, then further.
  std::size_t count = 0;
  double step = 2 * epsilon_;
  double least = threshold == infinity ? -infinity : threshold - step;
  while ((count = collect(expert, least, held_value)) <= index(room) && count < index(tokens_)) {
    step *= 4;
    least = step > 1e3 * epsilon_ ? -infinity : threshold - step;
  }
  if (count > index(room)) {
    for (std::size_t i = 0; i < count; ++i) values_[i] = candidates_[i].value;
    const auto first = values_.begin(), next = first + room;
    std::nth_element(first, next, first + static_cast<std::ptrdiff_t>(count), std::greater<>());
    threshold = *next;
  } else {
    threshold = -infinity;  // it has room for every token
  }
  const bool eager = round > 0 && round < eager_rounds;
  const auto above = [&](const Candidate& c) { return c.value > threshold; };
  auto ties = room - std::count_if(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count), above);
  for (std::size_t i = 0; i < count; ++i) {
    const Candidate& c = candidates_[i];
    if (c.value < threshold || (c.value == threshold && ties-- <= 0)) continue;
    const auto t = index(c.token);
    owner_[t] = owner_[t] == nobody ? expert : contested;
    if (eager && holder_[t] == expert) continue;  // its bid of epsilon stands
    const double amount = (threshold == -infinity ? 0 : c.value - threshold) + epsilon_;
    if (amount > best_bid_[t] || (amount == best_bid_[t] && expert < bidder_[t])) {
      best_bid_[t] = amount;
      bidder_[t] = expert;
    }
  }
}

// Holders keep their tokens as far as they have room, in the order of the tokens; each token left goes to the expert
// with room that scores it highest.
void BalancedAssignment::finish_greedily() {
  std::fill(owner_.begin(), owner_.end(), nobody);
  std::fill(used_.begin(), used_.end(), 0);
  const auto give = [this](std::int64_t token, std::int64_t expert) {
    owner_[index(token)] = static_cast<std::int32_t>(expert);
    ++used_[index(expert)];
  };
  const auto has_room = [this](std::int64_t expert) { return used_[index(expert)] < room_[index(expert)]; };
  for (std::int64_t t = 0; t < tokens_; ++t) {
    if (holder_[index(t)] != nobody && has_room(holder_[index(t)])) give(t, holder_[index(t)]);
  }
  for (std::int64_t t = 0; t < tokens_; ++t) {
    if (owner_[index(t)] != nobody) continue;
    std::int64_t best = nobody;
    for (std::int64_t e = 0; e < experts_; ++e) {
      const bool better = best == nobody || score_[index(e * tokens_ + t)] > score_[index(best * tokens_ + t)];
      if (has_room(e) && better) best = e;
    }
    give(t, best);
  }
}

void BalancedAssignment::write(std::span<std::int32_t> token_of_slot) {
  std::fill(token_of_slot.begin(), token_of_slot.end(), nobody);
  std::fill(used_.begin(), used_.end(), 0);
  for (std::int64_t t = 0; t < tokens_; ++t) {
    const std::int64_t expert = owner_[index(t)];
    token_of_slot[index(expert * capacity_ + used_[index(expert)]++)] = static_cast<std::int32_t>(t);
  }
}

}  // namespace smlp
