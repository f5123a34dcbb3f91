// Softmax gates (tensor/expert_choice.h): choices, weights, losses and gradients (places: cpu_places.cpp), in f64 whatever the
// type of the logits.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "tensor/cpu/cpu_backend.h"
#include "tensor/verb_checks.h"

namespace smlp::cpu {

namespace {

// The best of `value` (a function of the expert) but for `other`; NaN counts least, ties go to the lower index.
template <class Value>
std::int32_t best_of(std::int64_t experts, std::int64_t other, Value value) {
  std::int64_t best = -1;
  double most = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    if (e == other) continue;
    const double v = value(e);
    if (best < 0 || v > most || (most != most && v == v)) {
      best = e;
      most = v;
    }
  }
  return static_cast<std::int32_t>(best);
}

// gates = softmax(logits); returns the log of the sum of exponentials.
double softmax(const double* logits, std::int64_t experts, double* gates) {
  const double most = *std::max_element(logits, logits + experts);
  double sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) sum += gates[e] = std::exp(logits[e] - most);
  for (std::int64_t e = 0; e < experts; ++e) gates[e] /= sum;
  return most + std::log(sum);
}

// As softmax(), but for the gates.
double sigmoids(const double* logits, std::int64_t experts, double* gates) {
  const double log_sum = softmax(logits, experts, gates);
  for (std::int64_t e = 0; e < experts; ++e) gates[e] = 1 / (1 + std::exp(-logits[e]));
  return log_sum;
}

// What a row's gates are divided by where they are to be shares.
double whole_of(GateKind kind, const double* gates, std::int64_t experts) {
  return kind == GateKind::softmax ? 1 : std::accumulate(gates, gates + experts, 1e-20);
}

std::int64_t chosen(std::int32_t expert) { return expert < 0 ? ~expert : expert; }

bool keeps_second(const ChooseExperts& c, std::int64_t row, double first, double second) {
  if (c.compare_normalised) second /= first + second;
  switch (c.second) {
    case SecondChoice::random: return second > c.threshold * c.noise.of_row(row, ChoiceNoise::second_kind);
    case SecondChoice::threshold: return second > c.threshold;
    case SecondChoice::none: return false;
    default: return true;
  }
}

// What a token's choices count, and the gradient of that. Up to two choices; `kept`: it has a slot.
struct Gates {
  std::array<double, 2> value{};
  std::array<bool, 2> kept{};
  double sum = 1;      // what they are divided by
  bool fixed = true;   // the sum is no function of the gates
  std::array<bool, 2> in_sum{};

  Gates(Normalise normalise, double least) {
    normalise_ = normalise;
    least_ = least;
  }
  void add(std::size_t j, double gate, bool has_slot) {
    value[j] = gate;
    kept[j] = has_slot;
    in_sum[j] = normalise_ == Normalise::before_dropping || (normalise_ == Normalise::after_dropping && has_slot);
  }
  void divide() {
    if (normalise_ == Normalise::never) return;
    const double all = (in_sum[0] ? value[0] : 0) + (in_sum[1] ? value[1] : 0);
    fixed = !(all > least_);
    sum = fixed ? least_ : all;
  }

 private:
  Normalise normalise_;
  double least_;
};

double epsilon_of(DType type) {
  return type == DType::f64 ? std::numeric_limits<double>::epsilon()
                            : static_cast<double>(std::numeric_limits<float>::epsilon());
}

// Gates of the choices of token s, from row `gate` of the gates.
Gates gates_of(const double* gate, const std::int32_t* expert, const std::int32_t* slot, std::int64_t s,
               std::int64_t choices, Normalise normalise, double least) {
  Gates g(normalise, least);
  for (std::int64_t j = 0; j < choices; ++j) {
    const std::int64_t i = s * choices + j;
    g.add(static_cast<std::size_t>(j), gate[chosen(expert[i])], slot[i] >= 0);
  }
  g.divide();
  return g;
}

}  // namespace

// weights_ = the shares of the logits in scores_, group by group.
void CpuBackend::share_out(const ChooseExperts& c) {
  const std::int64_t tokens = c.logits.shape[0], experts = c.logits.shape[1];
  weights_.resize(scores_.size());
  const auto part = static_cast<std::size_t>(c.group_rows * experts);
  for (std::int64_t g = 0; g < tokens / c.group_rows; ++g) {
    const auto first = static_cast<std::size_t>(g) * part;
    c.rounds.as<std::int32_t>()[g] = sinkhorn_.scale(std::span(scores_).subspan(first, part), c.group_rows, experts,
                                                     std::span(weights_).subspan(first, part));
  }
}

// All rows in scores_, as f64.
void CpuBackend::choose_experts(const ChooseExperts& c) {
  check(c);
  const std::int64_t tokens = c.logits.shape[0], experts = c.logits.shape[1], choices = c.expert.shape[1];
  const bool noisy_second = choices == 2 && c.second == SecondChoice::sampling;
  load_scores(c.logits, 0, tokens);
  if (c.first == FirstChoice::sinkhorn) share_out(c);
  gates_.resize(scores_.size());
  auto* expert = c.expert.as<std::int32_t>();
  for (std::int64_t s = 0; s < tokens; ++s) {
    const double* logits = scores_.data() + s * experts;
    double* gates = gates_.data() + s * experts;
    c.log_sum.as<double>()[s] = (c.kind == GateKind::softmax ? softmax : sigmoids)(logits, experts, gates);
    const auto rank = [&](std::int64_t e) {
      if (logits[e] != logits[e]) return logits[e];
      if (c.first == FirstChoice::sinkhorn) return weights_[static_cast<std::size_t>(s * experts + e)];
      return c.bias ? gates[e] + c.bias_unit * c.bias.as<const std::int32_t>()[e] : logits[e];
    };
    const auto noisy = [&](std::int64_t e) { return logits[e] + c.noise.gumbel(s, e, experts); };
    const std::int32_t first = c.first == FirstChoice::sampling ? best_of(experts, -1, noisy) : best_of(experts, -1, rank);
    expert[s * choices] = first;
    if (choices == 1) continue;
    const std::int32_t second = noisy_second ? best_of(experts, first, noisy) : best_of(experts, first, rank);
    expert[s * choices + 1] = keeps_second(c, s, gates[first], gates[second]) ? second : ~second;
  }
  convert({gates_.data(), tokens, experts, experts}, DType::f64, as_matrix(c.gates), c.gates.dtype);
}

void CpuBackend::balance_of_choices(const BalanceOfChoices& b) {
  check(b);
  const std::int64_t tokens = b.gates.shape[0], experts = b.gates.shape[1], choices = b.expert.shape[1];
  const std::int64_t groups = tokens / b.group_rows;
  load_scores(b.gates, 0, tokens);
  const auto rows = static_cast<double>(b.group_rows);
  const double counted = rows * static_cast<double>(b.every_choice ? choices : 1);
  for (std::int64_t g = 0; g < groups; ++g) {
    double* frequency = b.frequency.as<double>() + g * experts;
    std::fill_n(frequency, experts, 0);
    gates_.assign(static_cast<std::size_t>(experts), 0);
    double squares = 0;
    for (std::int64_t s = g * b.group_rows; s < (g + 1) * b.group_rows; ++s) {
      for (std::int64_t j = 0; j < (b.every_choice ? choices : 1); ++j) {
        const std::int32_t e = b.expert.as<const std::int32_t>()[s * choices + j];
        if (e >= 0) frequency[e] += 1;
      }
      const double* gates = scores_.data() + s * experts;
      const double whole = whole_of(b.kind, gates, experts);
      for (std::int64_t e = 0; e < experts; ++e) gates_[static_cast<std::size_t>(e)] += gates[e] / whole;
      const double log_sum = b.log_sum.as<const double>()[s];
      squares += log_sum * log_sum;
    }
    double balance = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      frequency[e] /= counted;
      balance += gates_[static_cast<std::size_t>(e)] / rows * frequency[e];
    }
    b.add_to.as<double>()[2 * g] += b.share * static_cast<double>(experts) * balance;
    b.add_to.as<double>()[2 * g + 1] += squares / rows;
  }
}

void CpuBackend::weigh_slots(const WeighSlots& w) {
  const char* verb = "weigh_slots";
  check(w);
  const std::int64_t tokens = w.gates.shape[0], experts = w.gates.shape[1], choices = w.expert.shape[1];
  const std::int64_t slots = w.weight.size();
  load_scores(w.gates, 0, tokens);
  gates_.assign(static_cast<std::size_t>(slots), 0);
  const auto* slot = w.slot.as<const std::int32_t>();
  for (std::int64_t s = 0; s < tokens; ++s) {
    const Gates g = gates_of(scores_.data() + s * experts, w.expert.as<const std::int32_t>(), slot, s, choices, w.normalise,
                             epsilon_of(w.gates.dtype));
    for (std::int64_t j = 0; j < choices; ++j) {
      const std::int32_t at = slot[s * choices + j];
      require(at < slots, verb, "a slot lies beyond the last one");
      if (at >= 0) gates_[static_cast<std::size_t>(at)] = g.value[static_cast<std::size_t>(j)] / g.sum;
    }
  }
  convert({gates_.data(), 1, slots, slots}, DType::f64, {w.weight.data, 1, slots, slots}, w.weight.dtype);
}

namespace {

// Gradients of one row: of its gates from the balance loss, of its gates from the weights of its slots, and of its logits.
struct RowBackward {
  const ChoicesBackward& c;
  std::int64_t row, experts;
  double* gate;       // becomes the gradient of the logits
  double* dgate;      // adds up
  double row_scale;
  bool sigmoid = c.kind == GateKind::sigmoid;

  void add_balance(std::int64_t group) const {
    const double* frequency = c.frequency.as<const double>() + group * experts;
    const double balance = c.auxiliary.as<const double>()[2 * group];
    const double factor = row_scale * c.balance_weight * (c.negative_log ? -1 / balance : 1) * static_cast<double>(experts);
    const double whole = whole_of(c.kind, gate, experts);
    const double mean = sigmoid ? std::inner_product(gate, gate + experts, frequency, 0.0) / whole : 0;
    for (std::int64_t e = 0; e < experts; ++e) dgate[e] += factor * (frequency[e] - mean) / whole;
  }

  void add_weights(const std::vector<double>& dweight) const {
    const auto *expert = c.expert.as<const std::int32_t>(), *slot = c.slot.as<const std::int32_t>();
    const auto choices = c.expert.shape[1];
    const Gates g = gates_of(gate, expert, slot, row, choices, c.normalise, epsilon_of(c.gates.dtype));
    double dsum = 0;
    for (std::int64_t j = 0, i = row * choices; j < choices; ++j, ++i) {
      const auto choice = static_cast<std::size_t>(j);
      if (!g.kept[choice]) continue;
      require(slot[i] < std::ssize(dweight), "choices_backward", "a slot lies beyond the last one");
      const double d = dweight[static_cast<std::size_t>(slot[i])];
      dgate[chosen(expert[i])] += d / g.sum;
      dsum -= d * g.value[choice] / (g.sum * g.sum);
    }
    if (g.fixed) return;
    for (std::int64_t j = 0, i = row * choices; j < choices; ++j, ++i) {
      if (g.in_sum[static_cast<std::size_t>(j)]) dgate[chosen(expert[i])] += dsum;
    }
  }

  // `logit`: of this row, where the z loss of sigmoid gates needs them.
  void through_gates(double z, const double* logit) const {
    if (sigmoid) {
      for (std::int64_t e = 0; e < experts; ++e) {
        gate[e] *= (1 - gate[e]) * dgate[e];
        if (logit != nullptr) gate[e] += z * std::exp(logit[e] - c.log_sum.as<const double>()[row]);
      }
      return;
    }
    const double mean = std::inner_product(gate, gate + experts, dgate, 0.0);
    for (std::int64_t e = 0; e < experts; ++e) gate[e] *= dgate[e] - mean + z;
  }
};

}  // namespace

void CpuBackend::choices_backward(const ChoicesBackward& c) {
  check(c);
  const std::int64_t tokens = c.gates.shape[0], experts = c.gates.shape[1];
  const std::int64_t groups = c.frequency ? c.frequency.size() / experts : 0;
  const std::int64_t slots = c.dweight ? c.dweight.size() : 0;
  std::vector<double>& dweight = weights_;
  dweight.resize(static_cast<std::size_t>(slots));
  if (slots > 0) convert({c.dweight.data, 1, slots, slots}, c.dweight.dtype, {dweight.data(), 1, slots, slots}, DType::f64);
  const bool logits_needed = c.kind == GateKind::sigmoid && groups > 0 && c.z_weight != 0;
  if (logits_needed) {
    load_scores(c.logits, 0, tokens);
    logits_.assign(scores_.begin(), scores_.end());
  }
  load_scores(c.gates, 0, tokens);
  gates_.resize(static_cast<std::size_t>(experts));
  const double row_scale = groups > 0 ? *c.row_scale.as<const double>() : 0;
  for (std::int64_t s = 0; s < tokens; ++s) {
    std::fill(gates_.begin(), gates_.end(), 0);
    const RowBackward row{.c = c, .row = s, .experts = experts, .gate = scores_.data() + s * experts, .dgate = gates_.data(),
                          .row_scale = row_scale};
    if (groups > 0 && c.balance_weight != 0) row.add_balance(s / (tokens / groups));
    if (slots > 0) row.add_weights(dweight);
    const double z = groups > 0 ? row_scale * c.z_weight * 2 * c.log_sum.as<const double>()[s] : 0;
    row.through_gates(z, logits_needed ? logits_.data() + s * experts : nullptr);
  }
  convert({scores_.data(), tokens, experts, experts}, DType::f64, as_matrix(c.dlogits), c.dlogits.dtype);
}

}  // namespace smlp::cpu
