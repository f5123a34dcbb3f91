// Softmax gates: which experts each token chooses, the balance of that, what an answer counts, and the way
// back.
#include "tensor/cuda/choice.cuh"

namespace smlp::cuda {

namespace {

struct Chooser {
  Numbers logits, gates;
  std::int64_t tokens, experts, logits_stride, gates_stride;
  int choices;
  double* log_sum;
  std::int32_t* expert;
  GateKind kind;
  FirstChoice first_choice;
  const std::int32_t* bias;  // null: none
  double bias_unit;
  const double* shares;  // [tokens, experts]: of sinkhorn; null: none
  bool compare_normalised;
  SecondChoice second;
  double threshold;
  ChoiceNoise noise;
};

struct Candidate {
  double value;
  int expert;  // negative: none
};

// The better of two: NaN counts least, the lower index wins ties.
struct Better {
  __device__ Candidate operator()(const Candidate& a, const Candidate& b) const {
    if (a.expert < 0) return b;
    if (b.expert < 0) return a;
    const Candidate &low = a.expert < b.expert ? a : b, &high = a.expert < b.expert ? b : a;
    return high.value > low.value || (low.value != low.value && high.value == high.value) ? high : low;
  }
};

// The best value(e) but for expert `other`, by the lanes of a warp.
template <class Value>
__device__ int best_of(std::int64_t experts, int other, Value value) {
  Candidate best{0, -1};
  for (auto e = static_cast<int>(threadIdx.x % 32); e < experts; e += 32) {
    if (e != other) best = Better{}(best, {value(e), e});
  }
  for (int with = 16; with > 0; with /= 2) {
    const Candidate theirs{__shfl_xor_sync(all_lanes, best.value, with),
                           __shfl_xor_sync(all_lanes, best.expert, with)};
    best = Better{}(best, theirs);
  }
  return best.expert;
}

__device__ bool keeps_second(const Chooser& c, std::int64_t token, double first, double second) {
  if (c.compare_normalised) second /= first + second;
  switch (c.second) {
    case SecondChoice::random:
      return second > c.threshold * uniform(c.noise, static_cast<std::uint64_t>(c.noise.first_row + token),
                                            ChoiceNoise::second_kind);
    case SecondChoice::threshold:
      return second > c.threshold;
    case SecondChoice::none:
      return false;
    default:
      return true;
  }
}

// One warp a token.
__global__ void __launch_bounds__(block_threads) choose(Chooser c) {
  const std::int64_t token = team_number<32>();
  if (token >= c.tokens) return;
  const auto lane = static_cast<int>(threadIdx.x % 32);
  const auto logit = [&](int e) { return number_at(c.logits, token * c.logits_stride + e); };
  const auto noisy = [&](int e) {
    const double chance =
        uniform(c.noise, static_cast<std::uint64_t>((c.noise.first_row + token) * c.experts + e), 3);
    return logit(e) - log(-log(chance));
  };
  double most = -INFINITY, sum = 0;
  for (int e = lane; e < c.experts; e += 32) most = Most{}(logit(e), most);
  most = across_warp(most, Most{});
  for (int e = lane; e < c.experts; e += 32) sum += exp(logit(e) - most);
  sum = across_warp(sum, Sum{});
  const bool sigmoids = c.kind == GateKind::sigmoid;
  const auto gate = [&](int e) { return sigmoids ? 1 / (1 + exp(-logit(e))) : exp(logit(e) - most) / sum; };
  for (int e = lane; e < c.experts; e += 32) put_number(c.gates, token * c.gates_stride + e, gate(e));
  const auto rank = [&](int e) {
    const double value = logit(e);
    if (value != value) return value;
    if (c.shares) return c.shares[token * c.experts + e];
    return c.bias ? gate(e) + c.bias_unit * c.bias[e] : value;
  };
  const bool noisy_first = c.first_choice == FirstChoice::sampling;
  const int first = noisy_first ? best_of(c.experts, -1, noisy) : best_of(c.experts, -1, rank);
  int second = -1;
  if (c.choices == 2) {
    const bool noisy_second = c.second == SecondChoice::sampling;
    second = noisy_second ? best_of(c.experts, first, noisy) : best_of(c.experts, first, rank);
  }
  if (lane > 0) return;
  c.log_sum[token] = most + log(sum);
  c.expert[token * c.choices] = first;
  if (c.choices == 2)
    c.expert[token * 2 + 1] = keeps_second(c, token, gate(first), gate(second)) ? second : ~second;
}

// What a row's gates are divided by where they are to be shares.
template <class Gate>
__device__ double whole_of(GateKind kind, std::int64_t experts, Gate gate) {
  if (kind == GateKind::softmax) return 1;
  double whole = 1e-20;
  for (std::int64_t e = 0; e < experts; ++e) whole += gate(e);
  return whole;
}

struct Balance {
  Numbers gates;
  GateKind kind;
  const double* log_sum;
  const std::int32_t* expert;
  std::int64_t group_rows, experts, stride;
  int choices, counted_choices;
  double share;
  double *frequency, *add_to;
};

// One block a group: its lines take rows in turn, its lanes experts.
__global__ void __launch_bounds__(block_threads) balance(Balance b) {
  constexpr int lines = block_threads / 32;
  SMLP_SHARED(double, of_line, lines * 32);
  SMLP_SHARED(int, count_of_line, lines * 32);
  const int line = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t group = blockIdx.x, first = group * b.group_rows, end = first + b.group_rows;
  const auto rows = static_cast<double>(b.group_rows);
  double total = 0, squares = 0;
  for (std::int64_t base = 0; base < b.experts; base += 32) {
    const std::int64_t e = base + lane;
    double sum = 0;
    int count = 0;
    for (std::int64_t s = first + line; e < b.experts && s < end; s += lines) {
      const auto gate = [&](std::int64_t i) { return number_at(b.gates, s * b.stride + i); };
      sum += gate(e) / whole_of(b.kind, b.experts, gate);
      for (int j = 0; j < b.counted_choices; ++j) count += b.expert[s * b.choices + j] == e ? 1 : 0;
    }
    __syncthreads();
    of_line[line * 32 + lane] = sum;
    count_of_line[line * 32 + lane] = count;
    __syncthreads();
    if (line > 0 || e >= b.experts) continue;
    for (int l = 1; l < lines; ++l) {
      sum += of_line[l * 32 + lane];
      count += count_of_line[l * 32 + lane];
    }
    const double frequency = count / (rows * b.counted_choices);
    b.frequency[group * b.experts + e] = frequency;
    total += sum / rows * frequency;
  }
  for (std::int64_t s = first + threadIdx.x; s < end; s += block_threads)
    squares += b.log_sum[s] * b.log_sum[s];
  total = across_block(total, Sum{});
  squares = across_block(squares, Sum{});
  if (threadIdx.x > 0) return;
  b.add_to[2 * group] += b.share * static_cast<double>(b.experts) * total;
  b.add_to[2 * group + 1] += squares / rows;
}

struct Weigher {
  Numbers gates, weight;
  std::int64_t stride, slots;
  int choices;
  const std::int32_t *expert, *slot;
  Normalise normalise;
  double least;
  int* fault;
  template <int n>
  __device__ void at(std::int64_t, std::int64_t s) const {
    const TokenGates g(
        choices, normalise, least,
        [&](int j) { return number_at(gates, s * stride + chosen(expert[s * choices + j])); },
        [&](int j) { return slot[s * choices + j]; });
    for (int j = 0; j < choices; ++j) {
      const std::int64_t at = slot[s * choices + j];
      if (at >= slots) *fault = static_cast<int>(FaultKind::slot);
      if (at >= 0 && at < slots) put_number(weight, at, g.value[j] / g.sum);
    }
  }
};

struct Backward {
  Numbers gates, dweight, dlogits;
  GateKind kind;
  Numbers logits;  // of sigmoids with a weight of log_sum²; data null: none
  std::int64_t logits_stride;
  std::int64_t tokens, experts, gates_stride, dlogits_stride, slots, group_rows;
  int choices;
  const std::int32_t *expert, *slot;
  Normalise normalise;
  double least;
  const double *frequency, *log_sum, *auxiliary, *row_scale;  // frequency null: none
  double balance_weight, z_weight;
  bool negative_log;
  int* fault;
};

// One warp a token.
__global__ void __launch_bounds__(block_threads) back(Backward b) {
  const std::int64_t token = team_number<32>();
  if (token >= b.tokens) return;
  const auto lane = static_cast<int>(threadIdx.x % 32);
  const auto gate = [&](std::int64_t e) { return number_at(b.gates, token * b.gates_stride + e); };
  const auto expert = [&](int j) { return chosen(b.expert[token * b.choices + j]); };
  const bool sigmoids = b.kind == GateKind::sigmoid;
  double factor = 0, z = 0;
  const double* frequency = nullptr;
  if (b.frequency) {
    const std::int64_t group = token / b.group_rows;
    frequency = b.frequency + group * b.experts;
    const double slope = b.negative_log ? -1 / b.auxiliary[2 * group] : 1;
    if (b.balance_weight != 0)
      factor = *b.row_scale * b.balance_weight * slope * static_cast<double>(b.experts);
    z = *b.row_scale * b.z_weight * 2 * b.log_sum[token];
  }
  double of_choice[2] = {};  // gradients of the gates of the choices
  if (b.slots > 0) {
    const auto slot = [&](int j) { return b.slot[token * b.choices + j]; };
    const TokenGates g(
        b.choices, b.normalise, b.least, [&](int j) { return gate(expert(j)); }, slot);
    double dsum = 0;
    for (int j = 0; j < b.choices; ++j) {
      if (slot(j) >= b.slots) *b.fault = static_cast<int>(FaultKind::slot);
      if (!g.kept[j] || slot(j) >= b.slots) continue;
      const double d = number_at(b.dweight, slot(j));
      of_choice[j] += d / g.sum;
      dsum -= d * g.value[j] / (g.sum * g.sum);
    }
    for (int j = 0; !g.fixed && j < b.choices; ++j) of_choice[j] += g.in_sum[j] ? dsum : 0;
  }
  double whole = 1, share = 0;  // of sigmoids: the balance loss looks at their shares
  if (sigmoids && factor != 0) {
    whole = whole_of(b.kind, b.experts, gate);
    for (std::int64_t e = 0; e < b.experts; ++e) share += gate(e) * frequency[e] / whole;
  }
  const auto slope_of = [&](std::int64_t e) {
    double d = factor != 0 ? factor * (frequency[e] - share) / whole : 0;
    for (int j = 0; j < b.choices; ++j) d += expert(j) == e ? of_choice[j] : 0;
    return d;
  };
  if (sigmoids) {
    for (std::int64_t e = lane; e < b.experts; e += 32) {
      double d = gate(e) * (1 - gate(e)) * slope_of(e);
      if (b.logits.data) d += z * exp(number_at(b.logits, token * b.logits_stride + e) - b.log_sum[token]);
      put_number(b.dlogits, token * b.dlogits_stride + e, d);
    }
    return;
  }
  double mean = 0;
  for (std::int64_t e = lane; e < b.experts; e += 32) mean += gate(e) * slope_of(e);
  mean = across_warp(mean, Sum{});
  for (std::int64_t e = lane; e < b.experts; e += 32) {
    put_number(b.dlogits, token * b.dlogits_stride + e, gate(e) * (slope_of(e) - mean + z));
  }
}

constexpr int warps = block_threads / 32;

}  // namespace

void choose_experts(cudaStream_t stream, const ChooseExperts& c, const double* shares) {
  const std::int64_t tokens = c.logits.shape[0];
  const Chooser chooser{numbers(c.logits),
                        numbers(c.gates),
                        tokens,
                        c.logits.shape[1],
                        c.logits.stride[0],
                        c.gates.stride[0],
                        static_cast<int>(c.expert.shape[1]),
                        c.log_sum.as<double>(),
                        c.expert.as<std::int32_t>(),
                        c.kind,
                        c.first,
                        c.bias.as<const std::int32_t>(),
                        c.bias_unit,
                        shares,
                        c.compare_normalised,
                        c.second,
                        c.threshold,
                        c.noise};
  launch(stream, grid((tokens + warps - 1) / warps), choose, chooser);
}

void balance_of_choices(cudaStream_t stream, const BalanceOfChoices& b) {
  const auto choices = static_cast<int>(b.expert.shape[1]);
  const Balance balanced{numbers(b.gates),
                         b.kind,
                         b.log_sum.as<const double>(),
                         b.expert.as<const std::int32_t>(),
                         b.group_rows,
                         b.gates.shape[1],
                         b.gates.stride[0],
                         choices,
                         b.every_choice ? choices : 1,
                         b.share,
                         b.frequency.as<double>(),
                         b.add_to.as<double>()};
  launch(stream, grid(b.gates.shape[0] / b.group_rows), balance, balanced);
}

void weigh_slots(cudaStream_t stream, const WeighSlots& w, int* fault) {
  const std::int64_t tokens = w.gates.shape[0], one = 1;
  const Weigher body{numbers(w.gates),
                     numbers(w.weight),
                     w.gates.stride[0],
                     w.weight.size(),
                     static_cast<int>(w.expert.shape[1]),
                     w.expert.as<const std::int32_t>(),
                     w.slot.as<const std::int32_t>(),
                     w.normalise,
                     epsilon_of(w.gates.dtype),
                     fault};
  if (tokens > 0)
    launch(stream, grid(blocks_for(tokens, block_threads)), elements<1, Weigher>, one, tokens, body);
}

void choices_backward(cudaStream_t stream, const ChoicesBackward& c, int* fault) {
  const std::int64_t tokens = c.gates.shape[0], experts = c.gates.shape[1];
  const std::int64_t groups = c.frequency ? c.frequency.size() / experts : 1;
  const bool needed = c.kind == GateKind::sigmoid && c.frequency && c.z_weight != 0;
  const Backward backward{numbers(c.gates),
                          numbers(c.dweight),
                          numbers(c.dlogits),
                          c.kind,
                          needed ? numbers(c.logits) : Numbers{},
                          needed ? c.logits.stride[0] : 0,
                          tokens,
                          experts,
                          c.gates.stride[0],
                          c.dlogits.stride[0],
                          c.dweight ? c.dweight.size() : 0,
                          tokens / groups,
                          static_cast<int>(c.expert.shape[1]),
                          c.expert.as<const std::int32_t>(),
                          c.slot.as<const std::int32_t>(),
                          c.normalise,
                          epsilon_of(c.gates.dtype),
                          c.frequency.as<const double>(),
                          c.log_sum.as<const double>(),
                          c.auxiliary.as<const double>(),
                          c.row_scale.as<const double>(),
                          c.balance_weight,
                          c.z_weight,
                          c.negative_log,
                          fault};
  launch(stream, grid((tokens + warps - 1) / warps), back, backward);
}

}  // namespace smlp::cuda
