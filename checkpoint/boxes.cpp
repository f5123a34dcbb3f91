#include "checkpoint/boxes.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace smlp {

std::int64_t Box::elements() const {
  return std::accumulate(extent.begin(), extent.end(), std::int64_t{1}, std::multiplies<>());
}

std::vector<Box> boxes_of(const std::vector<std::int64_t>& dims, std::int64_t offset, std::int64_t count) {
  if (count == 0) return {};
  if (dims.size() == 1) return {{{offset}, {count}}};
  const std::vector<std::int64_t> inner(dims.begin() + 1, dims.end());
  const auto row = std::accumulate(inner.begin(), inner.end(), std::int64_t{1}, std::multiplies<>());
  std::vector<Box> boxes;
  const auto part_of_row = [&](std::int64_t which, std::int64_t from, std::int64_t elements) {
    for (auto box : boxes_of(inner, from, elements)) {
      box.start.insert(box.start.begin(), which);
      box.extent.insert(box.extent.begin(), 1);
      boxes.push_back(std::move(box));
    }
  };
  const auto end = offset + count;
  if (offset % row != 0) {
    const auto part = std::min(row - offset % row, count);
    part_of_row(offset / row, offset % row, part);
    offset += part;
  }
  if (const auto rows = (end - offset) / row; rows > 0) {
    Box middle{{offset / row}, {rows}};
    middle.start.resize(dims.size(), 0);
    middle.extent.insert(middle.extent.end(), inner.begin(), inner.end());
    boxes.push_back(std::move(middle));
    offset += rows * row;
  }
  if (offset < end) part_of_row(offset / row, 0, end - offset);
  return boxes;
}

}  // namespace smlp
