#include "data/merge_table.h"

#include <bit>

namespace smlp {

MergeTable::MergeTable(std::span<const Merge> merges) {
  const auto size = std::bit_ceil(2 * merges.size() + 2);
  entries_.resize(size);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
  for (std::uint32_t rank = 0; rank < merges.size(); ++rank) {
    const auto& merge = merges[rank];
    const auto pair = key(merge.left, merge.right);
    auto slot = first_slot(pair);
    while (entries_[slot].rank != never) slot = (slot + 1) & mask_;
    entries_[slot] = {pair, rank, merge.result};
  }
}

}  // namespace smlp
