// Who gets which place at an expert (PlaceTokens), and tables of experts by token id.
#include <algorithm>
#include <numeric>

#include "tensor/cpu/checks.h"
#include "tensor/cpu/cpu_backend.h"

namespace smlp::cpu {

namespace {

void check(const char* verb, const PlaceTokens& p) {
  require(p.expert.shape.rank() == 2 && p.experts > 0 && p.group_rows > 0, verb, "choices must be [tokens, choices]");
  vector_of(verb, "expert", p.expert, p.expert.size(), DType::i32);
  if (p.slot) vector_of(verb, "slot", p.slot, p.expert.size(), DType::i32);
  if (p.dropped) vector_of(verb, "dropped", p.dropped, 1, DType::f64);
  const std::int64_t tokens = p.expert.shape[0];
  std::int64_t slots = p.expert.size();
  if (p.rows_of_expert.empty()) {
    require(tokens % p.group_rows == 0 && p.capacity >= 0, verb, "a fixed layout needs equal groups and a capacity");
    slots = p.experts * (tokens / p.group_rows) * p.capacity;
  } else {
    require(static_cast<std::int64_t>(p.rows_of_expert.size()) == p.experts, verb, "rows_of_expert must hold one count an expert");
  }
  vector_of(verb, "token_of_slot", p.token_of_slot, slots, DType::i32);
  if (p.order == PlaceOrder::gate) {
    require(p.gates.shape.rank() == 2 && p.gates.shape[0] == tokens, verb, "the order by gates needs the gates");
  }
}

}  // namespace

// order_ = the rows of [first, first + count) as they are served.
void CpuBackend::order_tokens(const PlaceTokens& p, std::int64_t first, std::int64_t count) {
  order_.resize(static_cast<std::size_t>(count));
  std::iota(order_.begin(), order_.end(), static_cast<std::int32_t>(first));
  if (p.order == PlaceOrder::position) return;
  weights_.resize(static_cast<std::size_t>(count));
  if (p.order == PlaceOrder::gate) {
    const std::int64_t experts = p.gates.shape[1];
    load_scores(p.gates, first, count);
    for (std::int64_t i = 0; i < count; ++i) {
      const double* row = scores_.data() + i * experts;
      const double best = *std::max_element(row, row + experts);
      weights_[static_cast<std::size_t>(i)] = best == best ? best : -1;  // NaN has no order
    }
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      weights_[static_cast<std::size_t>(i)] = p.noise.of_row(first + i, ChoiceNoise::order_kind);
    }
  }
  const auto weight = [&](std::int32_t row) { return weights_[static_cast<std::size_t>(row - first)]; };
  std::sort(order_.begin(), order_.end(), [&](std::int32_t a, std::int32_t b) {
    const double x = weight(a), y = weight(b);
    return x > y || (x == y && a < b);
  });
}

// Places within a group first, in slots_ [S, choices]; then the slots, where all counts are known.
void CpuBackend::place_tokens(const PlaceTokens& p) {
  const char* verb = "place_tokens";
  check(verb, p);
  const std::int64_t tokens = p.expert.shape[0], choices = p.expert.shape[1], experts = p.experts;
  const std::int64_t groups = (tokens + p.group_rows - 1) / p.group_rows;
  const auto* expert = p.expert.as<const std::int32_t>();
  slots_.assign(static_cast<std::size_t>(tokens * choices), -1);
  counts_.assign(static_cast<std::size_t>(groups * experts), 0);  // choices that found a place
  std::int64_t dropped = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t first = g * p.group_rows, count = std::min(p.group_rows, tokens - first);
    const std::int64_t capacity = count == p.group_rows ? p.capacity : p.last_capacity;
    order_tokens(p, first, count);
    starts_.assign(static_cast<std::size_t>(experts), 0);  // choices of an expert so far, placed or not
    for (std::int64_t j = 0; j < choices; ++j) {
      for (const std::int32_t s : order_) {
        const std::int32_t e = expert[s * choices + j];
        if (e < 0) continue;
        require(e < experts, verb, "a token chose an expert that does not exist");
        const std::int64_t place = starts_[static_cast<std::size_t>(e)]++;
        if (capacity >= 0 && place >= capacity) {
          ++dropped;
          continue;
        }
        slots_[static_cast<std::size_t>(s * choices + j)] = static_cast<std::int32_t>(place);
        ++counts_[static_cast<std::size_t>(g * experts + e)];
      }
    }
  }
  if (p.dropped) *p.dropped.as<double>() += static_cast<double>(dropped);
  // Where the slots of (group, expert) begin.
  const bool compact = !p.rows_of_expert.empty();
  std::int64_t next = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t begin = next;
    for (std::int64_t g = 0; g < groups; ++g) {
      auto& start = counts_[static_cast<std::size_t>(g * experts + e)];
      const std::int64_t used = start;
      start = next;
      next += compact ? used : p.capacity;
    }
    if (compact) p.rows_of_expert[static_cast<std::size_t>(e)] = next - begin;
  }
  auto* token_of_slot = p.token_of_slot.as<std::int32_t>();
  std::fill_n(token_of_slot, p.token_of_slot.size(), -1);
  for (std::int64_t i = 0; i < tokens * choices; ++i) {
    auto& slot = slots_[static_cast<std::size_t>(i)];
    if (slot < 0) continue;
    const std::int64_t s = i / choices;
    slot += static_cast<std::int32_t>(counts_[static_cast<std::size_t>(s / p.group_rows * experts + expert[i])]);
    token_of_slot[slot] = static_cast<std::int32_t>(s);
  }
  if (p.slot) std::copy(slots_.begin(), slots_.end(), p.slot.as<std::int32_t>());
}

void CpuBackend::look_up(TensorView table, TensorView index, TensorView out) {
  const char* verb = "look_up";
  vector_of(verb, "table", table, table.size(), DType::i32);
  vector_of(verb, "index", index, index.size(), DType::i32);
  vector_of(verb, "out", out, index.size(), DType::i32);
  for (std::int64_t s = 0; s < index.size(); ++s) {
    const std::int32_t at = index.as<const std::int32_t>()[s];
    require(at >= 0 && at < table.size(), verb, "an index lies outside of the table");
    out.as<std::int32_t>()[s] = table.as<const std::int32_t>()[at];
  }
}

}  // namespace smlp::cpu
