// Whole gMLP blocks as experts (the paper's appendix A): each is W_out · (u ⊙ (W_s · LN(v) + b_s)) over its own
// rows, u and v the halves of act(W_in · LN(x)). A token sees the earlier tokens of its sequence that came to the
// same expert, and no others; W_s and b_s belong to places of the sequence, so what did not come counts as zero.
#pragma once

#include <string>

#include "layers/experts.h"
#include "layers/gmlp_block.h"

namespace smlp {

class GmlpExperts final : public Experts {
 public:
  GmlpExperts(ParameterStore& store, const std::string& name, GmlpSizes sizes, Activation activation,
              const ExpertExchange& exchange);

  bool need_places() const override { return true; }
  void forward(Context& c, ExpertRows rows, std::span<const std::int32_t> places, TensorView x,
               TensorView y) override;
  void backward(Context& c, TensorView dy, TensorView dx) override;

 private:
  // An expert's rows among all places: zeros where none came. And back.
  TensorView spread(Context& c, std::int64_t expert, TensorView rows) const;
  void gather(Context& c, std::int64_t first, std::int64_t count, TensorView spread, TensorView rows) const;
  void remember_places(Context& c, std::span<const std::int32_t> places);

  const ExpertExchange& exchange_;
  std::int64_t half_;
  Activation activation_;
  ExpertNorm norm_;
  ExpertLinear in_;
  ExpertNorm gate_norm_;
  Parameter &spatial_weight_, &spatial_bias_;  // [experts, heads, context, context], [experts, heads, context]
  ExpertLinear out_;
  std::vector<std::int64_t> rows_;
  TensorView place_of_row_;  // i32 [rows]
  TensorView row_of_place_;  // i32 [local experts, sequences · length]: a row of the expert's own, -1: none
  std::vector<std::int32_t> drawn_up_;  // on the host; its memory is kept
  TensorView normed_, pre_activation_, activated_, gate_normed_, gate_, gated_;
};

}  // namespace smlp
