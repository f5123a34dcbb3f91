// The losses that a softmax gate adds to a model's: balance over the experts, and the size of the logits (z-loss).
// A layer's balance loss of a routing group g is b = E · sum over e of P_e · f_e (1 in perfect balance), its z-loss the
// mean of squared log-sums; layers add up in f64 [groups, 2], groups are weighted by their tokens:
//   loss += 1/tokens · sum over g of tokens_g · (balance_weight · T(sum over layers of b) + z_weight · sum of z)
// (fairseq's moe_cross_entropy; z: ST-MoE), so neither ranks nor micro-batches change it.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

namespace smlp {

struct AuxiliaryLoss {
  double balance_weight = 0.01, z_weight = 0;
  bool every_choice = false;    // f counts all choices (Megatron), not the first ones alone
  bool average_layers = false;  // balance losses of layers are averaged, not summed
  bool negative_log = false;    // T(b) = -log b, not b

  // Of `per_group` as below: the sum over groups of the balance losses (which: 0) or of the z-losses (1), by their rows.
  static double unweighted(std::span<const double> per_group, std::int64_t group_rows, std::size_t which) {
    double sum = 0;
    for (std::size_t g = 0; g + 1 < per_group.size(); g += 2) sum += per_group[g + which];
    return sum * static_cast<double>(group_rows);
  }

  // `per_group` [groups, 2] as the routers of all layers left it. Times row_scale: this micro-batch's share.
  double total(std::span<const double> per_group, std::int64_t group_rows) const {
    double sum = 0;
    for (std::size_t g = 0; g + 1 < per_group.size(); g += 2) {
      const double balance = negative_log ? -std::log(per_group[g]) : per_group[g];
      // A weight of zero turns a loss off, whatever its value.
      if (balance_weight != 0) sum += balance_weight * balance;
      if (z_weight != 0) sum += z_weight * per_group[g + 1];
    }
    return sum * static_cast<double>(group_rows);
  }
};

}  // namespace smlp
