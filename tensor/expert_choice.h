// What a softmax gate asks of a Backend, call by call: which experts each token chooses, which choices find a
// place, how much an answer counts, and the losses and gradients of that. Top-1 (Switch) and top-2 (GShard);
// formulas: fairseq's moe branch, top1gate.py and top2gate.py. Logits and gates are f32, or f64 for f64. The
// lower index wins every tie, and an expert whose logit is NaN is chosen last, so every backend decides alike.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "core/random.h"
#include "tensor/tensor_view.h"

namespace smlp {

// What a token's gates are: the softmax of its logits, or of each one its sigmoid.
enum class GateKind : std::uint8_t { softmax, sigmoid };
// best: the largest logit. sampling: the largest of logits plus Gumbel noise. sinkhorn: the largest share (tensor/sinkhorn.h)
// of the token's group; `all`, `random` and `threshold` then mean the next largest share.
enum class FirstChoice : std::uint8_t { best, sampling, sinkhorn };
// all: the next best logit. sampling: the next best of logits plus Gumbel noise. random: the next best, with
// probability min(1, its gate / threshold). threshold: the next best if its gate exceeds the threshold. none: never.
enum class SecondChoice : std::uint8_t { all, sampling, random, threshold, none };
// Who gets an expert's places first: earlier rows; rows of the larger best gate; of the larger random number (and in all
// three first choices before second ones); or every choice by its own gate.
enum class PlaceOrder : std::uint8_t { position, gate, random, choice_gate };
// Whether the gates of a token's two choices are divided by their sum, and whether that holds those without a place.
enum class Normalise : std::uint8_t { never, before_dropping, after_dropping };

// Numbers that are a function of (key, place in the global batch), the same on every device and layout.
struct ChoiceNoise {
  std::uint64_t key = 0;
  std::int64_t first_row = 0;  // place of row 0

  double uniform(std::uint64_t element, std::uint64_t kind) const {  // (0, 1)
    const auto block = philox(key, element, kind);
    return (static_cast<double>((std::uint64_t{block[1]} << 32 | block[0]) >> 11) + 0.5) * 0x1p-53;
  }
  double of_row(std::int64_t row, std::uint64_t kind) const {
    return uniform(static_cast<std::uint64_t>(first_row + row), kind);
  }
  double gumbel(std::int64_t row, std::int64_t expert, std::int64_t experts) const {
    return -std::log(-std::log(uniform(static_cast<std::uint64_t>((first_row + row) * experts + expert), 3)));
  }
  static constexpr std::uint64_t second_kind = 4, order_kind = 5;
};

// gates of the logits, log_sum = log of the sum of exponentials. expert[s, j]: who is chosen; ~e where a second
// choice e was declined by policy: it asks for no place, but `before_dropping` counts its gate.
struct ChooseExperts {
  TensorView logits;          // [S, E]
  GateKind kind = GateKind::softmax;
  FirstChoice first = FirstChoice::best;
  SecondChoice second = SecondChoice::all;
  double threshold = 0.5;
  bool compare_normalised = false;  // gate / (sum of both gates) is compared with the threshold
  ChoiceNoise noise{};
  // i32 [E], or empty. Experts are then ranked by gate + bias_unit · bias, which no gate that counts holds; without noise.
  TensorView bias{};
  double bias_unit = 0;
  std::int64_t group_rows = 0;  // sinkhorn: divides S
  TensorView rounds{};          // out i32 [groups], sinkhorn: negative where the limit was met
  TensorView gates{};    // out [S, E]
  TensorView log_sum{};  // out f64 [S]
  TensorView expert{};   // out i32 [S, 1 or 2]
};

// The balance loss of each routing group of `group_rows` rows: E · sum over e of P_e · f_e, P the mean gate
// (sigmoids: over their sum of the token), f the share of the first choices (or of all that were not declined, over
// choices a token), counted before dropping.
struct BalanceOfChoices {
  TensorView gates, log_sum, expert;
  GateKind kind = GateKind::softmax;
  std::int64_t group_rows = 0;  // divides S
  bool every_choice = false;
  double share = 1;        // of this layer in the sum over layers
  TensorView frequency{};  // out f64 [groups, E]: f
  TensorView add_to{};     // f64 [groups, 2] += (share · balance loss, mean of log_sum²)
};

// Places are counted within groups of `group_rows` rows (the last may be shorter). Second choices stand behind all
// first choices of the same expert, placed or not, but for PlaceOrder::choice_gate.
struct PlaceTokens {
  TensorView expert;            // i32 [S, choices]; negative: no choice
  std::int64_t experts = 0, group_rows = 0;
  std::int64_t capacity = -1, last_capacity = -1;  // places at an expert, and in a shorter last group; -1: no limit
  PlaceOrder order = PlaceOrder::position;
  TensorView gates{};  // PlaceOrder::gate and choice_gate
  ChoiceNoise noise{};
  // Empty: token_of_slot is [E, groups, capacity], -1 where nobody sits, no host waits. Else the slots are compact,
  // [expert][group][place] without a gap, at the head of token_of_slot (room for S · choices), and the counts are
  // read by the host: waits.
  std::span<std::int64_t> rows_of_expert{};
  TensorView token_of_slot{};  // out i32
  TensorView slot{};           // out i32 [S, choices], -1: none; may be empty
  TensorView dropped{};        // f64 [1] += choices that found no place; may be empty
  TensorView taken{};          // f64 [experts] += choices that found one; may be empty
};

// weight[slot of a choice] = its gate, normalised; 0 in slots where nobody sits.
struct WeighSlots {
  TensorView gates, expert, slot;
  Normalise normalise = Normalise::never;
  TensorView weight;  // out, type of gates
};

// dlogits of dweight and of the auxiliary losses. The balance loss sends its gradient through the mean gates alone.
// row_scale[0] · (balance_weight · dT(balance) + z_weight · d log_sum²) for each row, where `balance` of the row's group
// is the sum over layers, T(b) = b or -log b.
struct ChoicesBackward {
  TensorView gates, expert, slot;
  GateKind kind = GateKind::softmax;
  TensorView logits{};  // sigmoid with z_weight: as gates
  Normalise normalise = Normalise::never;
  TensorView dweight{};  // type of gates; may be empty
  TensorView frequency{}, log_sum{}, auxiliary{}, row_scale{};  // all empty: no auxiliary losses
  double balance_weight = 0;  // share included
  bool negative_log = false;
  double z_weight = 0;
  TensorView dlogits{};  // out [S, E]
};

}  // namespace smlp
