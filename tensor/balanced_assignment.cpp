#include "tensor/balanced_assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace smlp {

namespace {
constexpr int eager_rounds = 100;  // while holders keep what they have at the least price
constexpr std::int32_t nobody = -1, contested = -2;
constexpr double minus_infinity = -std::numeric_limits<double>::infinity();
}  // namespace

int BalancedAssignment::assign(std::span<const double> scores, std::int64_t tokens, std::int64_t experts,
                               std::span<std::int32_t> token_of_slot, int limit) {
  tokens_ = tokens;
  workers_ = experts;
  capacity_ = (tokens + experts - 1) / experts;
  jobs_ = capacity_ * workers_;
  expect(static_cast<std::int64_t>(scores.size()) == tokens * experts, "assignment: scores are tokens x experts");
  expect(static_cast<std::int64_t>(token_of_slot.size()) == jobs_, "assignment: slots are experts x capacity");
  if (tokens == 0) return 0;
  load(scores);
  int round = 0;
  if (workers_ == 1) {
    std::fill(owner_.begin(), owner_.end(), 0);
  } else {
    while (round < limit && !auction(round)) ++round;
    if (round == limit) finish_greedily();
  }
  write(token_of_slot);
  return workers_ == 1 ? 0 : round == limit ? -std::max(limit, 1) : round + 1;
}

// Transposes the scores to [workers, jobs], replaces what is not finite and adds the dummies.
void BalancedAssignment::load(std::span<const double> scores) {
  const auto size = static_cast<std::size_t>(workers_ * jobs_), jobs = static_cast<std::size_t>(jobs_);
  score_.resize(size);
  cost_.assign(jobs, 0);
  best_bid_.resize(jobs);
  bidder_.resize(jobs);
  holder_.assign(jobs, nobody);
  owner_.resize(jobs);
  order_.resize(jobs + 1);
  room_.resize(static_cast<std::size_t>(workers_));
  double least = std::numeric_limits<double>::infinity(), most = minus_infinity;
  for (const double s : scores) {
    if (!std::isfinite(s)) continue;
    least = std::min(least, s);
    most = std::max(most, s);
  }
  if (least > most) least = most = 0;
  for (std::int64_t w = 0; w < workers_; ++w) {
    double* to = score_.data() + w * jobs_;
    for (std::int64_t t = 0; t < tokens_; ++t) {
      const double s = scores[static_cast<std::size_t>(t * workers_ + w)];
      to[t] = std::isfinite(s) ? s : least;
    }
    std::fill(to + tokens_, to + jobs_, least);
  }
  value_ = score_;
  highest_ = most;
  epsilon_ = std::max(1e-4, (most - least) / 50);
}

// Bids for the worker's best jobs, `capacity_` of them and at most one a dummy, what they are worth to it above the
// best job that it leaves; for a job it holds, only the least. Marks the jobs of its list in owner_.
void BalancedAssignment::choose_and_bid(std::int32_t worker, bool eager) {
  const double* value = value_.data() + worker * jobs_;
  const auto better = [value](std::int32_t a, std::int32_t b) {
    return value[a] > value[b] || (value[a] == value[b] && a < b);
  };
  auto* first = order_.data();
  auto* end = first + tokens_;
  std::iota(first, end, 0);
  double second_dummy = minus_infinity;
  if (tokens_ < jobs_) {
    auto dummy = static_cast<std::int32_t>(tokens_);
    for (std::int32_t j = dummy + 1; j < jobs_; ++j) {
      second_dummy = std::max(second_dummy, std::min(value[j], value[dummy]));
      if (better(j, dummy)) dummy = j;
    }
    *end++ = dummy;
  }
  auto* next = first + capacity_;
  std::nth_element(first, next, end, better);
  const auto offer = [this, worker](std::size_t j, double bid) {
    if (bid <= best_bid_[j]) return;
    best_bid_[j] = bid;
    bidder_[j] = worker;
  };
  for (const auto* job = first; job < next; ++job) {
    const auto j = static_cast<std::size_t>(*job);
    const double left = *job >= tokens_ ? std::max(value[*next], second_dummy) : value[*next];
    if (!eager || holder_[j] != worker) offer(j, value[*job] - left + epsilon_);
    owner_[j] = owner_[j] == nobody ? worker : contested;
  }
  if (!eager) return;
  for (std::size_t j = 0; j < holder_.size(); ++j) {
    if (holder_[j] == worker) offer(j, epsilon_);
  }
}

// One round; true when every job is in exactly one worker's list.
bool BalancedAssignment::auction(int round) {
  const bool eager = round > 0 && round < eager_rounds;
  std::fill(best_bid_.begin(), best_bid_.end(), 0.0);
  std::fill(bidder_.begin(), bidder_.end(), nobody);
  std::fill(owner_.begin(), owner_.end(), nobody);
  for (std::int32_t worker = 0; worker < workers_; ++worker) choose_and_bid(worker, eager);
  if (std::all_of(owner_.begin(), owner_.end(), [](std::int32_t owner) { return owner >= 0; })) return true;
  for (std::size_t j = 0; j < cost_.size(); ++j) cost_[j] += best_bid_[j];
  for (std::int64_t w = 0; w < workers_; ++w) {
    const double* score = score_.data() + w * jobs_;
    double* value = value_.data() + w * jobs_;
    for (std::int64_t j = 0; j < jobs_; ++j) value[j] = score[j] - cost_[static_cast<std::size_t>(j)];
  }
  if (round < eager_rounds) {
    for (std::int64_t j = 0; j < jobs_; ++j) {
      const std::int32_t winner = bidder_[static_cast<std::size_t>(j)];
      if (winner != nobody) value_[static_cast<std::size_t>(winner * jobs_ + j)] = highest_;
    }
  } else {
    for (std::int64_t j = 0; j < jobs_; ++j) {
      const std::int32_t winner = bidder_[static_cast<std::size_t>(j)];
      if (winner == nobody) continue;
      const auto place = static_cast<std::size_t>(winner * jobs_ + j);
      value_[place] = score_[place];
    }
  }
  holder_ = bidder_;
  return false;
}

// Holders keep their jobs as far as they have room, in the order of the jobs; each job left goes to the expert with
// room that scores it highest.
void BalancedAssignment::finish_greedily() {
  std::fill(room_.begin(), room_.end(), capacity_);
  std::fill(owner_.begin(), owner_.end(), nobody);
  std::int64_t next = 0;  // dummies: one each to the last experts
  for (std::int64_t j = tokens_; j < jobs_; ++j, ++next) {
    const std::int64_t worker = workers_ - 1 - next;
    owner_[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(worker);
    --room_[static_cast<std::size_t>(worker)];
  }
  const auto give = [this](std::int64_t token, std::int64_t worker) {
    owner_[static_cast<std::size_t>(token)] = static_cast<std::int32_t>(worker);
    --room_[static_cast<std::size_t>(worker)];
  };
  for (std::int64_t t = 0; t < tokens_; ++t) {
    const std::int32_t holder = holder_[static_cast<std::size_t>(t)];
    if (holder != nobody && room_[static_cast<std::size_t>(holder)] > 0) give(t, holder);
  }
  for (std::int64_t t = 0; t < tokens_; ++t) {
    if (owner_[static_cast<std::size_t>(t)] != nobody) continue;
    std::int64_t best = nobody;
    for (std::int64_t w = 0; w < workers_; ++w) {
      if (room_[static_cast<std::size_t>(w)] == 0) continue;
      if (best == nobody || score_[static_cast<std::size_t>(w * jobs_ + t)] >
                                score_[static_cast<std::size_t>(best * jobs_ + t)]) {
        best = w;
      }
    }
    give(t, best);
  }
}

void BalancedAssignment::write(std::span<std::int32_t> token_of_slot) {
  std::fill(token_of_slot.begin(), token_of_slot.end(), nobody);
  std::fill(room_.begin(), room_.end(), 0);
  for (std::int64_t t = 0; t < tokens_; ++t) {
    const std::int64_t worker = owner_[static_cast<std::size_t>(t)];
    token_of_slot[static_cast<std::size_t>(worker * capacity_ + room_[static_cast<std::size_t>(worker)]++)] =
        static_cast<std::int32_t>(t);
  }
}

}  // namespace smlp
