// What a rank updates: all of every segment, or, where the ranks that hold a segment share the work and the optimiser's
// state out among them, its part of each bucket (optim/gradient_sync.h).
#pragma once

#include <cstdint>
#include <vector>

#include "params/parameter_store.h"

namespace smlp {

// Elements [first, first + count) of a segment.
struct Share {
  std::size_t segment = 0;
  std::int64_t first = 0, count = 0;

  TensorView of(const TensorView& flat) const { return flat.row_range(first, count); }
};

inline std::vector<Share> whole_segments(const ParameterStore& store) {
  std::vector<Share> shares;
  for (const auto& segment : store.segments()) shares.push_back({shares.size(), 0, segment.value.size()});
  return shares;
}

}  // namespace smlp
