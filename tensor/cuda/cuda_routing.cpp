// Verbs that decide who sits in which slot, and what sits there counts.
#include "tensor/balanced_assignment.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/cuda_backend.h"
#include "tensor/cuda/routing_kernels.h"
#include "tensor/verb_checks.h"

namespace smlp::cuda {

namespace {

constexpr int rounds_at_once = 16;  // most assignments take 10 to 30

Numbers numbers(const TensorView& view) { return {view.data, view.dtype}; }

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

}  // namespace

void CudaBackend::assign_balanced(TensorView scores, std::int64_t groups, TensorView token_of_slot,
                                  TensorView rounds) {
  float_type("assign_balanced", scores);
  const auto [tokens, experts, capacity] = balanced_sizes(scores, groups, token_of_slot, rounds);
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
            take<double>(2 * groups * Auction::range_parts),
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
  float_type("assign_greedy", scores);
  check_assign_greedy(scores, token_of_slot, rows_of_expert);
  const std::int64_t tokens = scores.shape[0], experts = scores.shape[1];
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
  float_type("sigmoid_of_slots", scores);
  check_slots("sigmoid_of_slots", scores, alpha, token_of_slot, rows_of_expert);
  const SlotGate gate{numbers(scores), scores.shape[0], scores.stride[0],
                      token_of_slot.as<const std::int32_t>(), numbers(alpha)};
  for_ranges(rows_of_expert,
             [&](const SlotRange& range) { cuda::sigmoid_of_slots(stream(), range, gate, device_.fault()); });
}

void CudaBackend::sigmoid_of_slots_backward(TensorView alpha, TensorView dalpha, TensorView token_of_slot,
                                            std::span<const std::int64_t> rows_of_expert,
                                            TensorView dscores) {
  const char* verb = "sigmoid_of_slots_backward";
  float_type(verb, dscores);
  check_slots(verb, dscores, alpha, token_of_slot, rows_of_expert);
  vector_of(verb, "dalpha", dalpha, alpha.size(), dalpha.dtype);
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
  require(alpha.dtype == DType::f32, verb, "what slots count must be f32");
  check_slots(verb, scores, alpha, token_of_slot, rows_of_expert);
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
  check_look_up(table, index, out);
  cuda::look_up(stream(), table.as<const std::int32_t>(), table.size(), index.as<const std::int32_t>(),
                index.size(), out.as<std::int32_t>(), device_.fault());
}

// --- softmax gates -----------------------------------------------------------------------------------------

void CudaBackend::choose_experts(const ChooseExperts& c) {
  check(c);
  const std::int64_t tokens = c.logits.shape[0], experts = c.logits.shape[1];
  double* shares = nullptr;
  if (c.first == FirstChoice::sinkhorn) {
    const std::int64_t groups = tokens / c.group_rows;
    begin();
    shares = take<double>(tokens * experts);
    share_out(stream(), {numbers(c.logits), c.logits.stride[0], groups, c.group_rows, experts, shares,
                         take<double>(tokens + groups * experts), c.rounds.as<std::int32_t>()});
  }
  cuda::choose_experts(stream(), c, shares);
}

void CudaBackend::balance_of_choices(const BalanceOfChoices& b) {
  check(b);
  cuda::balance_of_choices(stream(), b);
}

void CudaBackend::place_tokens(const PlaceTokens& p) {
  check(p);
  const std::int64_t count = p.expert.size(), groups = (p.expert.shape[0] + p.group_rows - 1) / p.group_rows;
  begin();
  const Sort weights = take_wide_sort(count), cells = take_sort(count);
  const PlaceScratch scratch{take<std::int32_t>(groups * p.experts + 2),
                             take<std::int32_t>(groups * p.experts), take<std::int64_t>(p.experts)};
  fill(p.token_of_slot, -1);
  cuda::place_tokens(stream(), p, weights, cells, scratch, device_.fault());
  if (!p.rows_of_expert.empty()) to_host(scratch.rows_of_expert, p.rows_of_expert.data(), p.experts * 8);
}

void CudaBackend::weigh_slots(const WeighSlots& w) {
  check(w);
  fill(w.weight, 0);
  cuda::weigh_slots(stream(), w, device_.fault());
}

void CudaBackend::choices_backward(const ChoicesBackward& c) {
  check(c);
  cuda::choices_backward(stream(), c, device_.fault());
}

}  // namespace smlp::cuda
