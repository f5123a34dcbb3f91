// A flat range of a row-major tensor as boxes: HDF5 selects boxes.
#pragma once

#include <cstdint>
#include <vector>

namespace smlp {

// Elements [offset, offset + count) of a row-major tensor as boxes, in order: at most 2 · rank - 1 of them.
struct Box {
  std::vector<std::int64_t> start, extent;
  std::int64_t elements() const;
};
std::vector<Box> boxes_of(const std::vector<std::int64_t>& dims, std::int64_t offset, std::int64_t count);

}  // namespace smlp
