// Verbs that decide who sits in which slot, and what sits there counts.
#include <numeric>

#include "tensor/balanced_assignment.h"
#include "tensor/checks.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/cuda_backend.h"
#include "tensor/cuda/routing_kernels.h"

namespace smlp::cuda {

namespace {

constexpr int rounds_at_once = 32;

Numbers numbers(const TensorView& view) { return {view.data, view.dtype}; }

void check_scores(const char* verb, const TensorView& scores) {
  float_type(verb, scores);
  require(scores.shape.rank() == 2 && scores.shape[1] > 0, verb, "scores must be [tokens, experts]");
}

// body(SlotRange) for runs of experts that a kernel's arguments can hold.
template <class Body>
void for_ranges(std::span<const std::int64_t> rows_of_expert, Body body) {
  std::int64_t first = 0;
  for (std::size_t e = 0; e < rows_of_expert.size();) {
    SlotRange range;
    range.first_expert = static_cast<int>(e);
    range.start[0] = first;
    while (range.experts < SlotRange::most_experts && e < rows_of_expert.size()) {
      range.start[++range.experts] = first += rows_of_expert[e++];
    }
    body(range);
  }
}

std::int64_t slots_of(const char* verb, const TensorView& scores, const TensorView& token_of_slot,
                      std::span<const std::int64_t> rows) {
  require(scores.shape.rank() == 2 && static_cast<std::int64_t>(rows.size()) == scores.shape[1], verb,
          "rows_of_expert must hold one count an expert");
  const std::int64_t slots = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  vector_of(verb, "token_of_slot", token_of_slot, slots, DType::i32);
  return slots;
}

}  // namespace

void CudaBackend::assign_balanced(TensorView scores, std::int64_t groups, TensorView token_of_slot,
                                  TensorView rounds) {
  const char* verb = "assign_balanced";
  check_scores(verb, scores);
  require(groups > 0 && scores.shape[0] % groups == 0, verb, "the groups do not divide the tokens");
  const std::int64_t tokens = scores.shape[0] / groups, experts = scores.shape[1],
                     capacity = (tokens + experts - 1) / experts;
  vector_of(verb, "token_of_slot", token_of_slot, experts * groups * capacity, DType::i32);
  vector_of(verb, "rounds", rounds, groups, DType::i32);
  if (tokens == 0) return fill(rounds, 0);
  begin();
  const int limit = BalancedAssignment::round_limit;
  const std::int64_t places = groups * tokens;
  Auction a{numbers(scores),
            scores.stride[0],
            groups,
            tokens,
            experts,
            capacity,
            take<double>(places * experts),
            take<double>(places * experts),
            take<double>(places),
            take<std::int32_t>(places),
            take<std::int32_t>(places),
            take<std::int32_t>(groups * experts),
            take<double>(2 * groups),
            take<std::int32_t>(groups * limit),
            limit};
  auto* finished = take<std::int32_t>(1);
  begin_auction(stream(), a);
  std::int32_t settled = 0;
  for (int round = 0; round < limit && settled < groups;) {
    for (int i = 0; i < rounds_at_once && round < limit; ++i) auction_round(stream(), a, round++);
    count_settled(stream(), a, round, finished);
    to_host(finished, &settled, sizeof settled);
  }
  end_auction(stream(), a, token_of_slot.as<std::int32_t>(), rounds.as<std::int32_t>());
}

void CudaBackend::assign_greedy(TensorView scores, TensorView token_of_slot,
                                std::span<std::int64_t> rows_of_expert) {
  const char* verb = "assign_greedy";
  check_scores(verb, scores);
  const std::int64_t tokens = scores.shape[0], experts = scores.shape[1];
  vector_of(verb, "token_of_slot", token_of_slot, tokens, DType::i32);
  require(static_cast<std::int64_t>(rows_of_expert.size()) == experts, verb,
          "rows_of_expert must hold one count an expert");
  begin();
  const Sort s = take_sort(tokens);
  auto* start = take<std::int32_t>(experts + 1);
  best_experts(stream(), numbers(scores), tokens, experts, scores.stride[0], s);
  sort(stream(), s, bits_for(experts));
  run_starts(stream(), s, 0, experts, start);
  copy(TensorView(s.value, {tokens}, DType::i32), token_of_slot.reshaped({tokens}));
  std::vector<std::int32_t> starts(static_cast<std::size_t>(experts + 1));
  to_host(start, starts.data(), (experts + 1) * 4);
  for (std::size_t e = 0; e < rows_of_expert.size(); ++e) rows_of_expert[e] = starts[e + 1] - starts[e];
}

void CudaBackend::sigmoid_of_slots(TensorView scores, TensorView token_of_slot,
                                   std::span<const std::int64_t> rows_of_expert, TensorView alpha) {
  const char* verb = "sigmoid_of_slots";
  check_scores(verb, scores);
  const std::int64_t slots = slots_of(verb, scores, token_of_slot, rows_of_expert);
  vector_of(verb, "alpha", alpha, slots, alpha.dtype);
  const SlotGate gate{numbers(scores), scores.shape[0], scores.stride[0],
                      token_of_slot.as<const std::int32_t>(), numbers(alpha)};
  for_ranges(rows_of_expert,
             [&](const SlotRange& range) { cuda::sigmoid_of_slots(stream(), range, gate, device_.fault()); });
}

void CudaBackend::sigmoid_of_slots_backward(TensorView alpha, TensorView dalpha, TensorView token_of_slot,
                                            std::span<const std::int64_t> rows_of_expert,
                                            TensorView dscores) {
  const char* verb = "sigmoid_of_slots_backward";
  check_scores(verb, dscores);
  const std::int64_t slots = slots_of(verb, dscores, token_of_slot, rows_of_expert);
  vector_of(verb, "alpha", alpha, slots, alpha.dtype);
  vector_of(verb, "dalpha", dalpha, slots, dalpha.dtype);
  const SlotGate gate{numbers(dscores),  dscores.shape[0],
                      dscores.stride[0], token_of_slot.as<const std::int32_t>(),
                      numbers(alpha),    numbers(dalpha)};
  for_ranges(rows_of_expert, [&](const SlotRange& range) {
    cuda::sigmoid_of_slots_backward(stream(), range, gate, device_.fault());
  });
}

namespace {

SoftmaxGate softmax_gate(const char* verb, const TensorView& scores, const TensorView& alpha,
                         const TensorView& token_of_slot, std::span<const std::int64_t> rows_of_expert) {
  require(scores.shape.rank() == 2 && scores.contiguous() && scores.dtype == DType::f32, verb,
          "scores must be [tokens, experts] in f32");
  vector_of(verb, "alpha", alpha, slots_of(verb, scores, token_of_slot, rows_of_expert), DType::f32);
  return {scores.as<const float>(), scores.shape[0], scores.shape[1], token_of_slot.as<const std::int32_t>()};
}

}  // namespace

void CudaBackend::softmax_of_slots(TensorView scores, TensorView token_of_slot,
                                   std::span<const std::int64_t> rows_of_expert, TensorView alpha) {
  SoftmaxGate gate = softmax_gate("softmax_of_slots", scores, alpha, token_of_slot, rows_of_expert);
  gate.alpha = alpha.as<float>();
  for_ranges(rows_of_expert,
             [&](const SlotRange& range) { cuda::softmax_of_slots(stream(), range, gate, device_.fault()); });
}

void CudaBackend::softmax_of_slots_backward(TensorView scores, TensorView dalpha, TensorView token_of_slot,
                                            std::span<const std::int64_t> rows_of_expert,
                                            TensorView dscores) {
  const char* verb = "softmax_of_slots_backward";
  SoftmaxGate gate = softmax_gate(verb, scores, dalpha, token_of_slot, rows_of_expert);
  same_shape(verb, {scores, dscores});
  require(dscores.contiguous() && dscores.dtype == scores.dtype, verb, "dscores must be as the scores are");
  gate.dalpha = dalpha.as<const float>();
  gate.dscores = dscores.as<float>();
  begin();
  auto* expert = take<std::int32_t>(dalpha.size());
  for_ranges(rows_of_expert, [&](const SlotRange& range) { expert_of_slots(stream(), range, expert); });
  const Sort s = take_sort(dalpha.size());
  order_by_index(stream(), gate.token, gate.tokens, s, device_.fault());
  cuda::softmax_of_slots_backward(stream(), gate, expert, s);
}

void CudaBackend::look_up(TensorView table, TensorView index, TensorView out) {
  const char* verb = "look_up";
  vector_of(verb, "table", table, table.size(), DType::i32);
  vector_of(verb, "index", index, index.size(), DType::i32);
  vector_of(verb, "out", out, index.size(), DType::i32);
  cuda::look_up(stream(), table.as<const std::int32_t>(), table.size(), index.as<const std::int32_t>(),
                index.size(), out.as<std::int32_t>(), device_.fault());
}

// --- softmax gates
// ----------------------------------------------------------------------------------------------

namespace {

void check_gates(const char* verb, const TensorView& gates, const TensorView& expert) {
  require(gates.dtype == DType::f64 || gates.dtype == DType::f32, verb, "gates must be f32 or f64");
  require(gates.shape.rank() == 2 && gates.shape[1] > 0, verb, "gates must be [tokens, experts]");
  require(expert.shape.rank() == 2 && expert.shape[0] == gates.shape[0] && expert.shape[1] >= 1 &&
              expert.shape[1] <= 2,
          verb, "there must be one or two choices a token");
  require(expert.shape[1] <= gates.shape[1], verb, "two choices need two experts");
  vector_of(verb, "expert", expert, expert.size(), DType::i32);
}

}  // namespace

void CudaBackend::choose_experts(const ChooseExperts& c) {
  const char* verb = "choose_experts";
  same_shape(verb, {c.logits, c.gates});
  same_type(verb, {c.logits, c.gates});
  check_gates(verb, c.gates, c.expert);
  const std::int64_t tokens = c.logits.shape[0], experts = c.logits.shape[1];
  vector_of(verb, "log_sum", c.log_sum, tokens, DType::f64);
  if (c.bias) {
    vector_of(verb, "bias", c.bias, experts, DType::i32);
    const bool noisy_second = c.expert.shape[1] == 2 && c.second == SecondChoice::sampling;
    require(c.first == FirstChoice::best && !noisy_second, verb, "a bias goes with no noise and no shares");
  }
  double* shares = nullptr;
  if (c.first == FirstChoice::sinkhorn) {
    require(c.group_rows > 0 && tokens % c.group_rows == 0, verb, "the tokens are no whole number of groups");
    const std::int64_t groups = tokens / c.group_rows;
    vector_of(verb, "rounds", c.rounds, groups, DType::i32);
    begin();
    shares = take<double>(tokens * experts);
    share_out(stream(), {numbers(c.logits), c.logits.stride[0], groups, c.group_rows, experts, shares,
                         take<double>(tokens + groups * experts), c.rounds.as<std::int32_t>()});
  }
  cuda::choose_experts(stream(), c, shares);
}

void CudaBackend::balance_of_choices(const BalanceOfChoices& b) {
  const char* verb = "balance_of_choices";
  check_gates(verb, b.gates, b.expert);
  const std::int64_t tokens = b.gates.shape[0], experts = b.gates.shape[1];
  require(b.group_rows > 0 && tokens % b.group_rows == 0, verb, "the tokens are no whole number of groups");
  vector_of(verb, "log_sum", b.log_sum, tokens, DType::f64);
  vector_of(verb, "frequency", b.frequency, tokens / b.group_rows * experts, DType::f64);
  vector_of(verb, "add_to", b.add_to, tokens / b.group_rows * 2, DType::f64);
  cuda::balance_of_choices(stream(), b);
}

void CudaBackend::place_tokens(const PlaceTokens& p) {
  const char* verb = "place_tokens";
  require(p.expert.shape.rank() == 2 && p.experts > 0 && p.group_rows > 0, verb,
          "choices must be [tokens, choices]");
  vector_of(verb, "expert", p.expert, p.expert.size(), DType::i32);
  if (p.slot) vector_of(verb, "slot", p.slot, p.expert.size(), DType::i32);
  if (p.dropped) vector_of(verb, "dropped", p.dropped, 1, DType::f64);
  const std::int64_t tokens = p.expert.shape[0], count = p.expert.size(),
                     groups = (tokens + p.group_rows - 1) / p.group_rows;
  const bool compact = !p.rows_of_expert.empty();
  require(compact || (tokens % p.group_rows == 0 && p.capacity >= 0), verb,
          "a fixed layout needs equal groups and a capacity");
  require(!compact || static_cast<std::int64_t>(p.rows_of_expert.size()) == p.experts, verb,
          "rows_of_expert must hold one count an expert");
  vector_of(verb, "token_of_slot", p.token_of_slot, compact ? count : p.experts * groups * p.capacity,
            DType::i32);
  if (p.order == PlaceOrder::gate || p.order == PlaceOrder::choice_gate) {
    const bool fit = p.gates.shape.rank() == 2 && p.gates.shape[0] == tokens && p.gates.shape[1] == p.experts;
    require(fit, verb, "the order by gates needs the gates");
  }
  begin();
  const Sort weights = take_wide_sort(count), cells = take_sort(count);
  const PlaceScratch scratch{take<std::int32_t>(groups * p.experts + 2),
                             take<std::int32_t>(groups * p.experts), take<std::int64_t>(p.experts)};
  fill(p.token_of_slot, -1);
  cuda::place_tokens(stream(), p, weights, cells, scratch, device_.fault());
  if (compact) to_host(scratch.rows_of_expert, p.rows_of_expert.data(), p.experts * 8);
}

void CudaBackend::weigh_slots(const WeighSlots& w) {
  const char* verb = "weigh_slots";
  check_gates(verb, w.gates, w.expert);
  vector_of(verb, "slot", w.slot, w.expert.size(), DType::i32);
  vector_of(verb, "weight", w.weight, w.weight.size(), w.gates.dtype);
  fill(w.weight, 0);
  cuda::weigh_slots(stream(), w, device_.fault());
}

void CudaBackend::choices_backward(const ChoicesBackward& c) {
  const char* verb = "choices_backward";
  same_shape(verb, {c.gates, c.dlogits});
  same_type(verb, {c.gates, c.dlogits, c.dweight});
  check_gates(verb, c.gates, c.expert);
  vector_of(verb, "slot", c.slot, c.expert.size(), DType::i32);
  if (c.kind == GateKind::sigmoid && c.frequency && c.z_weight != 0) {
    same_shape(verb, {c.gates, c.logits});
    same_type(verb, {c.gates, c.logits});
  }
  if (c.dweight) vector_of(verb, "dweight", c.dweight, c.dweight.size(), c.gates.dtype);
  if (c.frequency) {
    const std::int64_t tokens = c.gates.shape[0], experts = c.gates.shape[1],
                       groups = c.frequency.size() / experts;
    require(groups > 0 && tokens % groups == 0, verb, "the tokens are no whole number of groups");
    vector_of(verb, "frequency", c.frequency, groups * experts, DType::f64);
    vector_of(verb, "log_sum", c.log_sum, tokens, DType::f64);
    vector_of(verb, "auxiliary", c.auxiliary, groups * 2, DType::f64);
    vector_of(verb, "row_scale", c.row_scale, 1, DType::f64);
  }
  cuda::choices_backward(stream(), c, device_.fault());
}

}  // namespace smlp::cuda
