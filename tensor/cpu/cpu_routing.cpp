// Verbs that decide who sits in which slot, and the gates over slots.
#include <algorithm>
#include <cmath>

#include "tensor/cpu/cpu_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cpu {

double CpuBackend::value_of(const TensorView& view, std::int64_t offset) const {
  double value = 0;
  convert({view.at(offset), 1, 1, 1}, view.dtype, {&value, 1, 1, 1}, DType::f64);
  return value;
}

// Rows [first, first + count) of the scores in scores_, as f64.
void CpuBackend::load_scores(const TensorView& scores, std::int64_t first, std::int64_t count) {
  const std::int64_t experts = scores.shape[1];
  scores_.resize(static_cast<std::size_t>(count * experts));
  convert({scores.at(first * scores.stride[0]), count, experts, scores.stride[0]}, scores.dtype,
          {scores_.data(), count, experts, experts}, DType::f64);
}

void CpuBackend::assign_balanced(TensorView scores, std::int64_t groups, TensorView token_of_slot, TensorView rounds) {
  float_type("assign_balanced", scores);
  const auto [tokens, experts, capacity] = balanced_sizes(scores, groups, token_of_slot, rounds);
  slots_.resize(static_cast<std::size_t>(experts * capacity));
  for (std::int64_t g = 0; g < groups; ++g) {
    load_scores(scores, g * tokens, tokens);
    rounds.as<std::int32_t>()[g] = assignment_.assign(scores_, tokens, experts, slots_);
    for (std::int64_t e = 0; e < experts; ++e) {
      std::int32_t* to = token_of_slot.as<std::int32_t>() + (e * groups + g) * capacity;
      for (std::int64_t i = 0; i < capacity; ++i) {
        const std::int32_t token = slots_[static_cast<std::size_t>(e * capacity + i)];
        to[i] = token < 0 ? token : token + static_cast<std::int32_t>(g * tokens);
      }
    }
  }
}

void CpuBackend::assign_greedy(TensorView scores, TensorView token_of_slot, std::span<std::int64_t> rows_of_expert) {
  float_type("assign_greedy", scores);
  check_assign_greedy(scores, token_of_slot, rows_of_expert);
  const std::int64_t tokens = scores.shape[0], experts = scores.shape[1];
  load_scores(scores, 0, tokens);
  slots_.resize(static_cast<std::size_t>(tokens));
  std::fill(rows_of_expert.begin(), rows_of_expert.end(), 0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double* row = scores_.data() + t * experts;
    std::int64_t best = 0;
    for (std::int64_t e = 1; e < experts; ++e) {
      if (row[e] > row[best] || (row[best] != row[best] && row[e] == row[e])) best = e;
    }
    slots_[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(best);
    ++rows_of_expert[static_cast<std::size_t>(best)];
  }
  starts_.assign(static_cast<std::size_t>(experts), 0);
  for (std::size_t e = 1; e < starts_.size(); ++e) starts_[e] = starts_[e - 1] + rows_of_expert[e - 1];
  for (std::int64_t t = 0; t < tokens; ++t) {
    auto& place = starts_[static_cast<std::size_t>(slots_[static_cast<std::size_t>(t)])];
    token_of_slot.as<std::int32_t>()[place++] = static_cast<std::int32_t>(t);
  }
}

namespace {

template <class Body>
void for_each_slot(const TensorView& token_of_slot, std::span<const std::int64_t> rows_of_expert, Body body) {
  const auto* token = token_of_slot.as<const std::int32_t>();
  std::int64_t slot = 0;
  for (std::size_t e = 0; e < rows_of_expert.size(); ++e) {
    for (std::int64_t i = 0; i < rows_of_expert[e]; ++i, ++slot) {
      body(slot, std::int64_t{token[slot]}, static_cast<std::int64_t>(e));
    }
  }
}

}  // namespace

void CpuBackend::sigmoid_of_slots(TensorView scores, TensorView token_of_slot,
                                  std::span<const std::int64_t> rows_of_expert, TensorView alpha) {
  float_type("sigmoid_of_slots", scores);
  check_slots("sigmoid_of_slots", scores, alpha, token_of_slot, rows_of_expert);
  scores_.resize(static_cast<std::size_t>(alpha.size()));
  for_each_slot(token_of_slot, rows_of_expert, [&](std::int64_t slot, std::int64_t token, std::int64_t expert) {
    scores_[static_cast<std::size_t>(slot)] =
        token < 0 ? 0 : value_of(scores, token * scores.stride[0] + expert);
  });
  kernels(DType::f64).sigmoid(scores_.data(), scores_.data(), alpha.size());
  for_each_slot(token_of_slot, rows_of_expert, [&](std::int64_t slot, std::int64_t token, std::int64_t) {
    if (token < 0) scores_[static_cast<std::size_t>(slot)] = 0;
  });
  const std::int64_t n = alpha.size();
  convert({scores_.data(), 1, n, n}, DType::f64, {alpha.data, 1, n, n}, alpha.dtype);
}

void CpuBackend::sigmoid_of_slots_backward(TensorView alpha, TensorView dalpha, TensorView token_of_slot,
                                           std::span<const std::int64_t> rows_of_expert, TensorView dscores) {
  const char* verb = "sigmoid_of_slots_backward";
  float_type(verb, dscores);
  check_slots(verb, dscores, alpha, token_of_slot, rows_of_expert);
  vector_of(verb, "dalpha", dalpha, alpha.size(), dalpha.dtype);
  for_each_slot(token_of_slot, rows_of_expert, [&](std::int64_t slot, std::int64_t token, std::int64_t expert) {
    if (token < 0) return;
    const double a = value_of(alpha, slot);
    const std::int64_t place = token * dscores.stride[0] + expert;
    double sum = value_of(dscores, place) + value_of(dalpha, slot) * a * (1 - a);
    convert({&sum, 1, 1, 1}, DType::f64, {dscores.at(place), 1, 1, 1}, dscores.dtype);
  });
}

namespace {

void check_gate(const char* verb, const TensorView& scores, const TensorView& alpha, const TensorView& token_of_slot,
                std::span<const std::int64_t> rows_of_expert) {
  require(scores.shape.rank() == 2 && scores.contiguous() && (scores.dtype == DType::f32 || scores.dtype == DType::f64),
          verb, "scores must be [tokens, experts] in f32 or f64");
  require(static_cast<std::int64_t>(rows_of_expert.size()) == scores.shape[1], verb,
          "rows_of_expert must hold one count an expert");
  std::int64_t slots = 0;
  for (const auto rows : rows_of_expert) slots += rows;
  vector_of(verb, "token_of_slot", token_of_slot, slots, DType::i32);
  vector_of(verb, "alpha", alpha, slots, scores.dtype);
  const auto* token = token_of_slot.as<const std::int32_t>();
  require(std::all_of(token, token + slots, [&](std::int32_t t) { return t < scores.shape[0]; }), verb,
          "a token lies beyond the scores");
}

// The softmax of one row of scores.
template <class W>
struct Softmax {
  const W* row;
  std::int64_t experts;
  W most, total = 0;

  Softmax(const W* scores, std::int64_t count) : row(scores), experts(count), most(*std::max_element(scores, scores + count)) {
    for (std::int64_t e = 0; e < experts; ++e) total += std::exp(row[e] - most);
  }
  W operator()(std::int64_t e) const { return std::exp(row[e] - most) / total; }
};

template <class W>
void softmax_gate(const TensorView& scores, const TensorView& token_of_slot, std::span<const std::int64_t> rows_of_expert,
                  const TensorView& alpha) {
  std::fill_n(alpha.as<W>(), alpha.size(), W(0));
  for_each_slot(token_of_slot, rows_of_expert, [&](std::int64_t slot, std::int64_t token, std::int64_t e) {
    if (token < 0) return;
    const std::int64_t row = token * scores.shape[1];
    alpha.as<W>()[slot] = Softmax<W>(scores.as<const W>() + row, scores.shape[1])(e);
  });
}

template <class W>
void softmax_gate_backward(const TensorView& scores, const TensorView& dalpha, const TensorView& token_of_slot,
                           std::span<const std::int64_t> rows_of_expert, const TensorView& dscores) {
  for_each_slot(token_of_slot, rows_of_expert, [&](std::int64_t slot, std::int64_t token, std::int64_t e) {
    if (token < 0) return;
    const std::int64_t row = token * scores.shape[1];
    const Softmax<W> chance(scores.as<const W>() + row, scores.shape[1]);
    const W slope = dalpha.as<const W>()[slot] * chance(e);
    for (std::int64_t f = 0; f < scores.shape[1]; ++f) {
      dscores.as<W>()[row + f] += slope * (static_cast<W>(f == e) - chance(f));
    }
  });
}

}  // namespace

void CpuBackend::softmax_of_slots(TensorView scores, TensorView token_of_slot, std::span<const std::int64_t> rows_of_expert,
                                  TensorView alpha) {
  check_gate("softmax_of_slots", scores, alpha, token_of_slot, rows_of_expert);
  const auto gate = scores.dtype == DType::f64 ? softmax_gate<double> : softmax_gate<float>;
  gate(scores, token_of_slot, rows_of_expert, alpha);
}

void CpuBackend::softmax_of_slots_backward(TensorView scores, TensorView dalpha, TensorView token_of_slot,
                                           std::span<const std::int64_t> rows_of_expert, TensorView dscores) {
  const char* verb = "softmax_of_slots_backward";
  check_gate(verb, scores, dalpha, token_of_slot, rows_of_expert);
  same_shape(verb, {scores, dscores});
  require(dscores.contiguous() && dscores.dtype == scores.dtype, verb, "dscores must be as the scores are");
  const auto gate = scores.dtype == DType::f64 ? softmax_gate_backward<double> : softmax_gate_backward<float>;
  gate(scores, dalpha, token_of_slot, rows_of_expert, dscores);
}

}  // namespace smlp::cpu
