// The rules of gates as one would write them on paper, to hold the routers against.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/expert_choice.h"

namespace smlp::test {

struct Plain {
  std::vector<std::vector<double>> weight;  // [token][expert]; NaN: not sent
  double balance = 0;
};

inline std::vector<double> softmax(const double* logits, std::size_t experts) {
  std::vector<double> gates(experts);
  double sum = 0;
  for (std::size_t e = 0; e < experts; ++e) sum += std::exp(logits[e]);
  for (std::size_t e = 0; e < experts; ++e) gates[e] = std::exp(logits[e]) / sum;
  return gates;
}

inline Plain plainly(const std::vector<double>& logits, std::size_t experts, std::size_t choices, double capacity, bool before,
                     double threshold, PlaceOrder by) {
  const std::size_t tokens = logits.size() / experts;
  std::vector<std::vector<double>> gates;
  std::vector<std::vector<std::size_t>> chosen(tokens);
  for (std::size_t s = 0; s < tokens; ++s) {
    gates.push_back(softmax(logits.data() + s * experts, experts));
    std::vector<std::size_t> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return gates[s][a] > gates[s][b]; });
    chosen[s].assign(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(choices));
  }
  std::vector<std::size_t> order(tokens);
  std::iota(order.begin(), order.end(), 0);
  if (by == PlaceOrder::gate) {
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return gates[a][chosen[a][0]] > gates[b][chosen[b][0]]; });
  }
  Plain plain;
  plain.weight.assign(tokens, std::vector<double>(experts, std::nan("")));
  std::vector<std::pair<std::size_t, std::size_t>> served;  // token, which choice
  for (std::size_t j = 0; j < choices; ++j) {
    for (const std::size_t s : order) served.emplace_back(s, j);
  }
  if (by == PlaceOrder::choice_gate) {
    std::stable_sort(served.begin(), served.end(), [&](const auto& a, const auto& b) {
      return gates[a.first][chosen[a.first][a.second]] > gates[b.first][chosen[b.first][b.second]];
    });
  }
  std::vector<double> position(experts, 0);
  for (const auto& [s, j] : served) {
    const std::size_t e = chosen[s][j];
    double compared = gates[s][e];
    if (before) compared /= gates[s][chosen[s][0]] + gates[s][chosen[s][1]];
    if (j == 1 && threshold > 0 && compared <= threshold) continue;
    if (position[e]++ < capacity) plain.weight[s][e] = gates[s][e];
  }
  for (std::size_t s = 0; s < tokens && choices == 2; ++s) {
    double sum = 0;
    for (const std::size_t e : chosen[s]) {
      if (before || plain.weight[s][e] == plain.weight[s][e]) sum += gates[s][e];
    }
    for (auto& w : plain.weight[s]) w /= sum;
  }
  for (std::size_t e = 0; e < experts; ++e) {
    double mean = 0, share = 0;
    for (std::size_t s = 0; s < tokens; ++s) {
      mean += gates[s][e] / static_cast<double>(tokens);
      share += chosen[s][0] == e ? 1 / static_cast<double>(tokens) : 0;
    }
    plain.balance += static_cast<double>(experts) * mean * share;
  }
  return plain;
}

}  // namespace smlp::test
