// How many places an expert has for the tokens of one routing group, by the rule of a reference implementation.
#pragma once

#include <cstdint>
#include <string>

namespace smlp {

struct Capacity {
  // fairseq and Tutel: choices · int(factor · ceil(S / E)); mesh: int(S · factor / E), whatever the choices;
  // megatron and DeepSpeed's top-1: choices · ceil(S / E · factor).
  enum class Rule : std::uint8_t { fairseq, mesh, megatron } rule = Rule::fairseq;
  double factor = 1;          // 0: no limit
  double fraction = 0;        // above 0: ceil(fraction · S) instead, fairseq's way of evaluating
  std::int64_t minimum = 0;   // mesh and DeepSpeed: 4

  bool limited() const noexcept { return factor > 0 || fraction > 0; }
  // Only where limited(): between 1 and `tokens`, for more are never needed.
  std::int64_t of(std::int64_t tokens, std::int64_t experts, std::int64_t choices) const;
};

}  // namespace smlp
