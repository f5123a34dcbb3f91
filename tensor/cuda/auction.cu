// The balanced assignment on the device, round by round as tensor/balanced_assignment.cpp has it, in the same
// f64 arithmetic: one block for each expert lists and bids, one thread for each token takes the best bid.
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/routing_kernels.h"

namespace smlp::cuda {

namespace {

constexpr int eager_rounds = 100, digits = 256, held_tokens = 16, together = 8;
constexpr std::int32_t nobody = -1, contested = -2;

__device__ double raw_score(const Auction& a, std::int64_t group, std::int64_t token, std::int64_t e) {
  return number_at(a.scores, (group * a.tokens + token) * a.stride + e);
}

// Its part of the least and the greatest score of a group, and what is zero at first.
__global__ void __launch_bounds__(block_threads) find_extremes(Auction a) {
  const std::int64_t group = blockIdx.y, part = blockIdx.x * block_threads + threadIdx.x;
  constexpr std::int64_t step = Auction::range_parts * block_threads;
  double least = INFINITY, most = -INFINITY;
  for (std::int64_t i = part; i < a.tokens * a.experts; i += step) {
    const std::int64_t token = quotient(i, a.experts);
    const double score = raw_score(a, group, token, i - token * a.experts);
    if (!isfinite(score)) continue;
    least = score < least ? score : least;
    most = score > most ? score : most;
  }
  least = -across_block(-least, Most{});
  most = across_block(most, Most{});
  if (threadIdx.x == 0) {
    double* extremes = a.extremes + 2 * (group * Auction::range_parts + blockIdx.x);
    extremes[0] = least;
    extremes[1] = most;
  }
  for (std::int64_t t = part; t < a.tokens; t += step) {
    a.cost[group * a.tokens + t] = 0;
    a.holder[group * a.tokens + t] = a.owner[group * a.tokens + t] = nobody;
  }
  for (std::int64_t e = part; e < a.experts; e += step) a.room[group * a.experts + e] = 0;
  for (std::int64_t round = part; round < a.limit; round += step) a.unsettled[group * a.limit + round] = 0;
}

// Scores expert by expert; what is not finite is the least. Epsilon and the greatest score.
__global__ void __launch_bounds__(block_threads) load_scores(Auction a) {
  static_assert(Auction::range_parts <= block_threads);
  const std::int64_t group = blockIdx.y, step = static_cast<std::int64_t>(gridDim.x) * block_threads;
  const double* extremes = a.extremes + 2 * group * Auction::range_parts;
  const bool reads = threadIdx.x < Auction::range_parts;
  double least = -across_block(reads ? -extremes[2 * threadIdx.x] : -INFINITY, Most{});
  double most = across_block(reads ? extremes[2 * threadIdx.x + 1] : -INFINITY, Most{});
  if (least > most) least = most = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
       i < a.tokens * a.experts; i += step) {
    const std::int64_t e = quotient(i, a.tokens);
    const double score = raw_score(a, group, i - e * a.tokens, e);
    a.score[group * a.experts * a.tokens + i] = isfinite(score) ? score : least;
  }
  if (blockIdx.x > 0 || threadIdx.x > 0) return;
  const double epsilon = (most - least) / 50;
  a.range[2 * group] = epsilon > 1e-4 ? epsilon : 1e-4;
  a.range[2 * group + 1] = most;
}

// Where the experts do not divide the tokens, those that fewest like best take one token fewer.
__global__ void __launch_bounds__(block_threads) set_rooms(Auction a) {
  const std::int64_t group = blockIdx.x, missing = a.capacity * a.experts - a.tokens;
  const double* score = a.score + group * a.experts * a.tokens;
  std::int32_t* room = a.room + group * a.experts;
  for (std::int64_t t = threadIdx.x; missing > 0 && t < a.tokens; t += block_threads) {
    std::int64_t best = 0;
    for (std::int64_t e = 1; e < a.experts; ++e)
      best = score[e * a.tokens + t] > score[best * a.tokens + t] ? e : best;
    atomicAdd(room + best, 1);  // how many like it best, for now
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  // Taken ones are marked by their count, negative; then all become rooms.
  for (std::int64_t i = 0; i < missing; ++i) {
    std::int64_t least = -1;
    for (std::int64_t e = a.experts - 1; e >= 0; --e) {
      if (room[e] >= 0 && (least < 0 || room[e] < room[least])) least = e;
    }
    room[least] = -1;
  }
  for (std::int64_t e = 0; e < a.experts; ++e)
    room[e] = static_cast<std::int32_t>(a.capacity - (room[e] < 0 ? 1 : 0));
}

__device__ bool settled_before(const Auction& a, std::int64_t group, int round) {
  return round > 0 && a.unsettled[group * a.limit + round - 1] == 0;
}

// The number that ordered() made this of.
__device__ double number_of(std::uint64_t key) {
  return __longlong_as_double(static_cast<long long>(key >> 63 ? key & ~(std::uint64_t{1} << 63) : ~key));
}

// One block for each expert: its best tokens, as many as it has room for, and what it bids for each.
__global__ void __launch_bounds__(block_threads) list_and_bid(Auction a, int round) {
  SMLP_SHARED(int, of_digit, digits);
  SMLP_SHARED(std::uint64_t, found, 2);  // digits so far; the one value that has them
  SMLP_SHARED(int, still, 1);
  SMLP_SHARED(int, alike, 1);
  const std::int64_t e = blockIdx.x, group = blockIdx.y;
  if (settled_before(a, group, round)) return;
  const bool eager = round > 0 && round < eager_rounds;
  const double epsilon = a.range[2 * group], highest = a.range[2 * group + 1];
  const double *score = a.score + (group * a.experts + e) * a.tokens, *cost = a.cost + group * a.tokens;
  const std::int32_t* holder = a.holder + group * a.tokens;
  double* amount = a.amount + (group * a.experts + e) * a.tokens;
  const int room = a.room[group * a.experts + e];
  // What it holds is worth most to it at first, and its plain score in late rounds.
  const auto value_of = [&](std::int64_t t) {
    const double plain = score[t], less = plain - cost[t];
    return holder[t] == e ? (round <= eager_rounds ? highest : plain) : less;
  };
  const bool limited = room < a.tokens;
  // The first tokens of a thread are asked for once, all together; those behind them each time.
  std::uint64_t held[held_tokens];
#pragma unroll
  for (int k = 0; k < held_tokens; ++k) {
    const std::int64_t t = k * block_threads + static_cast<int>(threadIdx.x);
    held[k] = t < a.tokens ? ordered(value_of(t)) : 0;
  }
  // body(token, its key), by all threads of a warp together; also of tokens that are not there.
  const auto each = [&](auto body) {
#pragma unroll
    for (int k = 0; k < held_tokens; ++k) body(k * block_threads + static_cast<int>(threadIdx.x), held[k]);
    for (std::int64_t base = held_tokens * block_threads; base < a.tokens; base += block_threads) {
      const std::int64_t t = base + threadIdx.x;
      body(t, t < a.tokens ? ordered(value_of(t)) : 0);
    }
  };
  // The greatest value that is left out, digit by digit, until one value alone has the digits so far: `still` is its rank
  // among those that share them.
  std::uint64_t prefix = 0;
  int shift = 64;
  if (threadIdx.x == 0) {
    still[0] = room;
    alike[0] = static_cast<int>(a.tokens);
  }
  __syncthreads();
  const auto shares = [&](std::uint64_t key) { return shift == 64 || key >> shift == prefix >> shift; };
  while (limited && shift > 0 && alike[0] > 1) {
    of_digit[threadIdx.x] = 0;
    __syncthreads();
    const int next = shift - 8;
    each([&](std::int64_t t, std::uint64_t key) {
      const bool counts = t < a.tokens && shares(key);
      // First digits are few: one lane counts for all that have its own.
      const auto digit = counts ? static_cast<unsigned>(key >> next & 255) : digits;
      const unsigned same = __match_any_sync(all_lanes, digit);
      if (counts && (same & ((1u << threadIdx.x % 32) - 1)) == 0) atomicAdd(of_digit + digit, __popc(same));
    });
    __syncthreads();
    const int digit = digits - 1 - static_cast<int>(threadIdx.x), here = of_digit[digit], rank = still[0];
    int all = 0;
    const int greater = sum_before(here, &all);
    if (greater <= rank && rank < greater + here) {
      still[0] = rank - greater;
      alike[0] = here;
      found[0] = prefix | static_cast<std::uint64_t>(digit) << next;
    }
    __syncthreads();
    prefix = found[0];
    shift = next;
  }
  if (limited && shift > 0) {
    each([&](std::int64_t t, std::uint64_t key) {
      if (t < a.tokens && shares(key)) found[1] = key;
    });
    __syncthreads();
    prefix = found[1];
  }
  const double threshold = limited ? number_of(prefix) : 0;
  const auto bid = [&](std::int64_t t, double value, bool listed) {
    const bool stands = eager && holder[t] == e;  // its bid of epsilon
    amount[t] = !listed || room == 0 ? -1 : stands ? 0 : (limited ? value - threshold : 0) + epsilon;
  };
  // `still` of the values that equal the threshold are listed, those of the lowest tokens. Mostly there are none.
  int ties_left = limited ? still[0] : 0;
  if (ties_left == 0) {
    each([&](std::int64_t t, std::uint64_t key) {
      if (t < a.tokens) bid(t, number_of(key), !limited || number_of(key) > threshold);
    });
    return;
  }
  for (std::int64_t base = 0; base < a.tokens; base += block_threads) {
    const std::int64_t t = base + threadIdx.x;
    const double value = t < a.tokens ? value_of(t) : 0;
    const bool tie = t < a.tokens && value == threshold;
    int ties = 0;
    const int rank = sum_before(tie ? 1 : 0, &ties);
    if (t < a.tokens) bid(t, value, value > threshold || (tie && rank < ties_left));
    ties_left = ties < ties_left ? ties_left - ties : 0;
  }
}

// One thread for each token.
__global__ void __launch_bounds__(block_threads) settle(Auction a, int round) {
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x,
                     group = blockIdx.y;
  if (t >= a.tokens || settled_before(a, group, round)) return;
  const std::int64_t place = group * a.tokens + t;
  const bool eager = round > 0 && round < eager_rounds;
  std::int32_t bidder = eager ? a.holder[place] : nobody, owner = nobody;
  double best = bidder != nobody ? a.range[2 * group] : 0;
  const double* amounts = a.amount + group * a.experts * a.tokens + t;
  // So many bids at once: asked for before the first is looked at.
  const auto take = [&](std::int64_t first, auto many) {
    constexpr int count = decltype(many)::value;
    double amount[count];
#pragma unroll
    for (int k = 0; k < count; ++k) amount[k] = amounts[(first + k) * a.tokens];
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const auto e = static_cast<std::int32_t>(first + k);
      owner = amount[k] < 0 ? owner : owner == nobody ? e : contested;
      const bool better = (amount[k] > best) | ((amount[k] == best) & (amount[k] > 0) & (e < bidder));
      best = better ? amount[k] : best;
      bidder = better ? e : bidder;
    }
  };
  std::int64_t e = 0;
  for (; e + together <= a.experts; e += together) take(e, std::integral_constant<int, together>{});
  for (; e < a.experts; ++e) take(e, std::integral_constant<int, 1>{});
  a.owner[place] = owner;
  if (owner < 0) atomicAdd(a.unsettled + group * a.limit + round, 1);
  a.cost[place] += best;
  a.holder[place] = bidder;
}

__global__ void __launch_bounds__(block_threads) count_groups(Auction a, int rounds, std::int32_t* finished) {
  int settled = 0;
  for (std::int64_t g = threadIdx.x; g < a.groups; g += block_threads) {
    int round = 0;
    while (round < rounds && a.unsettled[g * a.limit + round] > 0) ++round;
    settled += round < rounds ? 1 : 0;
  }
  settled = across_block(settled, Sum{});
  if (threadIdx.x == 0) *finished = settled;
}

// Holders keep their tokens as far as they have room, in the order of the tokens; each token left goes to the
// expert with room that scores it highest. By one thread: it is seldom needed.
__device__ void finish_greedily(const Auction& a, std::int64_t group) {
  std::int32_t *owner = a.owner + group * a.tokens, *room = a.room + group * a.experts;
  const double* score = a.score + group * a.experts * a.tokens;
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    const std::int32_t holder = a.holder[group * a.tokens + t];
    const bool keeps = holder != nobody && room[holder] > 0;
    owner[t] = keeps ? holder : nobody;
    if (keeps) --room[holder];
  }
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    if (owner[t] != nobody) continue;
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < a.experts; ++e) {
      if (room[e] > 0 && (best < 0 || score[e * a.tokens + t] > score[best * a.tokens + t])) best = e;
    }
    owner[t] = static_cast<std::int32_t>(best);
    --room[best];
  }
}

__global__ void __launch_bounds__(block_threads) close_auction(Auction a, std::int32_t* rounds) {
  const std::int64_t group = blockIdx.x;
  if (threadIdx.x > 0) return;
  int round = 0;
  while (round < a.limit && a.unsettled[group * a.limit + round] > 0) ++round;
  if (round == a.limit) finish_greedily(a, group);
  rounds[group] = round == a.limit ? -a.limit : round + 1;
}

// One block for each expert and group: its tokens in ascending order.
__global__ void __launch_bounds__(block_threads) write_slots(Auction a, std::int32_t* token_of_slot) {
  const std::int64_t e = blockIdx.x, group = blockIdx.y;
  std::int32_t* to = token_of_slot + (e * a.groups + group) * a.capacity;
  std::int64_t used = 0;
  for (std::int64_t base = 0; base < a.tokens; base += block_threads) {
    const std::int64_t t = base + threadIdx.x;
    const bool mine = t < a.tokens && a.owner[group * a.tokens + t] == e;
    int all = 0;
    const int before = sum_before(mine ? 1 : 0, &all);
    if (mine && used + before < a.capacity)
      to[used + before] = static_cast<std::int32_t>(group * a.tokens + t);
    used += all;
  }
  for (std::int64_t i = used + threadIdx.x; i < a.capacity; i += block_threads) to[i] = nobody;
}

}  // namespace

void begin_auction(cudaStream_t stream, const Auction& a) {
  launch(stream, grid(Auction::range_parts, a.groups), find_extremes, a);
  launch(stream, grid(blocks_for(a.tokens * a.experts, std::int64_t{4} * block_threads), a.groups), load_scores, a);
  launch(stream, grid(a.groups), set_rooms, a);
}

void auction_round(cudaStream_t stream, const Auction& a, int round) {
  launch(stream, grid(a.experts, a.groups), list_and_bid, a, round);
  launch(stream, grid((a.tokens + block_threads - 1) / block_threads, a.groups), settle, a, round);
}

void count_settled(cudaStream_t stream, const Auction& a, int rounds, std::int32_t* finished) {
  launch(stream, grid(1), count_groups, a, rounds, finished);
}

void end_auction(cudaStream_t stream, const Auction& a, std::int32_t* token_of_slot, std::int32_t* rounds) {
  launch(stream, grid(a.groups), close_auction, a, rounds);
  launch(stream, grid(a.experts, a.groups), write_slots, a, token_of_slot);
}

}  // namespace smlp::cuda
