#include "tensor/exact_assignment.h"

#include <functional>
#include <limits>
#include <numeric>
#include <queue>

#include "core/error.h"

namespace smlp {

namespace {

class Flow {
 public:
  Flow(std::span<const double> scores, std::int64_t tokens, std::span<const std::int64_t> room)
      : experts_(room.size()),
        scores_(scores),
        room_(room.begin(), room.end()),
        owner_(static_cast<std::size_t>(tokens), -1),
        moves_(experts_ * experts_),
        cost_(experts_),
        before_(experts_) {}

  // Keeps the assignment of all tokens so far the best: the new one enters somewhere, and along the cheapest path each
  // expert hands one token on to the next, up to one with room.
  void add(std::size_t token) {
    find_paths(token);
    std::size_t last = experts_;
    for (std::size_t e = 0; e < experts_; ++e) {
      if (room_[e] > 0 && (last == experts_ || cost_[e] < cost_[last])) last = e;
    }
    expect(last < experts_, "assign_exactly: there are more tokens than places");
    --room_[last];
    // From the end of the path on, so that every heap is still as the path saw it.
    std::size_t to = last;
    while (before_[to] != experts_) {
      const std::size_t from = before_[to];
      const std::size_t moved = moves_[from * experts_ + to].top().second;
      give(moved, to);
      to = from;
    }
    give(token, to);
  }

  std::vector<std::int32_t> owners() && { return std::move(owner_); }

 private:
  using Move = std::pair<double, std::size_t>;  // what it costs, token
  using Moves = std::priority_queue<Move, std::vector<Move>, std::greater<>>;

  double score(std::size_t token, std::size_t expert) const { return scores_[token * experts_ + expert]; }

  void give(std::size_t token, std::size_t expert) {
    owner_[token] = static_cast<std::int32_t>(expert);
    for (std::size_t other = 0; other < experts_; ++other) {
      if (other != expert) moves_[expert * experts_ + other].emplace(score(token, expert) - score(token, other), token);
    }
  }

  // The cheapest move of a token from one expert to another; infinite where there is none.
  double cheapest(std::size_t from, std::size_t to) {
    auto& moves = moves_[from * experts_ + to];
    while (!moves.empty() && owner_[moves.top().second] != static_cast<std::int32_t>(from)) moves.pop();
    return moves.empty() ? std::numeric_limits<double>::infinity() : moves.top().first;
  }

  // Bellman and Ford: moves may gain, but no circle of them does.
  void find_paths(std::size_t token) {
    std::vector<double> length(experts_ * experts_);
    for (std::size_t from = 0; from < experts_; ++from) {
      for (std::size_t to = 0; to < experts_; ++to) length[from * experts_ + to] = from == to ? 0 : cheapest(from, to);
      cost_[from] = -score(token, from);
      before_[from] = experts_;
    }
    constexpr double noise = 1e-12;  // rounding must not close a circle
    for (bool shorter = true; shorter;) {
      shorter = false;
      for (std::size_t from = 0; from < experts_; ++from) {
        for (std::size_t to = 0; to < experts_; ++to) {
          const double through = cost_[from] + length[from * experts_ + to];
          if (from == to || !(through < cost_[to] - noise)) continue;
          cost_[to] = through;
          before_[to] = from;
          shorter = true;
        }
      }
    }
  }

  std::size_t experts_;
  std::span<const double> scores_;
  std::vector<std::int64_t> room_;
  std::vector<std::int32_t> owner_;
  std::vector<Moves> moves_;  // [from][to], with moves of tokens that have left since
  std::vector<double> cost_;  // of the cheapest path to each expert
  std::vector<std::size_t> before_;
};

}  // namespace

std::vector<std::int32_t> assign_exactly(std::span<const double> scores, std::int64_t tokens,
                                         std::span<const std::int64_t> room) {
  Flow flow(scores, tokens, room);
  for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) flow.add(t);
  return std::move(flow).owners();
}

}  // namespace smlp
