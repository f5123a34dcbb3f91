// Who gets which place at an expert (PlaceTokens), and tables of experts by token id.
#include <algorithm>
#include <numeric>

#include "tensor/cpu/cpu_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cpu {

namespace {

// Rows or choices by falling weight, then by rising rank. Not std::stable_sort, which allocates.
template <class Weight, class Rank>
void sort_by(std::vector<std::int32_t>& order, Weight weight, Rank rank) {
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const double x = weight(a), y = weight(b);
    return x > y || (x == y && rank(a) < rank(b));
  });
}

}  // namespace

// order_ = the choices of rows [first, first + count) as they are served, each as row · choices + which.
void CpuBackend::order_choices(const PlaceTokens& p, std::int64_t first, std::int64_t count) {
  const auto choices = static_cast<std::int32_t>(p.expert.shape[1]);
  const auto* expert = p.expert.as<const std::int32_t>();
  const std::int64_t experts = p.experts;
  const auto gate_row = [&](std::int32_t row) { return scores_.data() + (row - first) * experts; };
  const auto number = [](double value) { return value == value ? value : -1; };  // NaN has no order
  const auto self = [](std::int32_t row) { return row; };
  rows_.resize(static_cast<std::size_t>(count));
  std::iota(rows_.begin(), rows_.end(), static_cast<std::int32_t>(first));
  if (p.order == PlaceOrder::gate || p.order == PlaceOrder::choice_gate) load_scores(p.gates, first, count);
  if (p.order == PlaceOrder::gate) {
    sort_by(rows_, [&](std::int32_t row) { return number(*std::max_element(gate_row(row), gate_row(row) + experts)); }, self);
  } else if (p.order == PlaceOrder::random) {
    weights_.resize(static_cast<std::size_t>(count));
    for (const std::int32_t row : rows_) {
      weights_[static_cast<std::size_t>(row - first)] = p.noise.of_row(row, ChoiceNoise::order_kind);
    }
    sort_by(rows_, [&](std::int32_t row) { return weights_[static_cast<std::size_t>(row - first)]; }, self);
  }
  order_.clear();
  for (std::int32_t j = 0; j < choices; ++j) {
    for (const std::int32_t row : rows_) order_.push_back(row * choices + j);
  }
  if (p.order != PlaceOrder::choice_gate) return;
  sort_by(
      order_,
      [&](std::int32_t c) { return expert[c] < 0 ? -1 : number(gate_row(c / choices)[expert[c]]); },
      [&](std::int32_t c) { return std::pair(c % choices, c / choices); });
}

// Places within a group first, in slots_ [S, choices]; then the slots, where all counts are known.
void CpuBackend::place_tokens(const PlaceTokens& p) {
  const char* verb = "place_tokens";
  check(p);
  const std::int64_t tokens = p.expert.shape[0], choices = p.expert.shape[1], experts = p.experts;
  const std::int64_t groups = (tokens + p.group_rows - 1) / p.group_rows;
  const auto* expert = p.expert.as<const std::int32_t>();
  slots_.assign(static_cast<std::size_t>(tokens * choices), -1);
  counts_.assign(static_cast<std::size_t>(groups * experts), 0);  // choices that found a place
  std::int64_t dropped = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t first = g * p.group_rows, count = std::min(p.group_rows, tokens - first);
    const std::int64_t capacity = count == p.group_rows ? p.capacity : p.last_capacity;
    order_choices(p, first, count);
    starts_.assign(static_cast<std::size_t>(experts), 0);  // choices of an expert so far, placed or not
    for (const std::int32_t choice : order_) {
      const std::int32_t e = expert[choice];
      if (e < 0) continue;
      require(e < experts, verb, "a token chose an expert that does not exist");
      const std::int64_t place = starts_[static_cast<std::size_t>(e)]++;
      if (capacity >= 0 && place >= capacity) {
        ++dropped;
        continue;
      }
      slots_[static_cast<std::size_t>(choice)] = static_cast<std::int32_t>(place);
      ++counts_[static_cast<std::size_t>(g * experts + e)];
    }
  }
  if (p.dropped) *p.dropped.as<double>() += static_cast<double>(dropped);
  // Where the slots of (group, expert) begin.
  const bool compact = !p.rows_of_expert.empty();
  std::int64_t next = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t begin = next;
    std::int64_t taken = 0;
    for (std::int64_t g = 0; g < groups; ++g) {
      auto& start = counts_[static_cast<std::size_t>(g * experts + e)];
      const std::int64_t used = start;
      start = next;
      next += compact ? used : p.capacity;
      taken += used;
    }
    if (p.taken) p.taken.as<double>()[e] += static_cast<double>(taken);
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
  check_look_up(table, index, out);
  for (std::int64_t s = 0; s < index.size(); ++s) {
    const std::int32_t at = index.as<const std::int32_t>()[s];
    require(at >= 0 && at < table.size(), verb, "an index lies outside of the table");
    out.as<std::int32_t>()[s] = table.as<const std::int32_t>()[at];
  }
}

}  // namespace smlp::cpu
