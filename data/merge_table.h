// Which pairs of tokens become one, and how early: the merges of a byte-pair encoding as a hash table.
// Immutable.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace smlp {

struct Merge {
  std::int32_t left = 0, right = 0, result = 0;
};

class MergeTable {
 public:
  static constexpr std::uint32_t never = std::numeric_limits<std::uint32_t>::max();
  struct Entry {
    std::uint64_t pair = 0;
    std::uint32_t rank = never;  // place in the list of merges; never: not a merge
    std::int32_t result = 0;
  };

  explicit MergeTable(std::span<const Merge> merges);  // in order of rank, no pair twice

  Entry find(std::int32_t left, std::int32_t right) const {
    const auto pair = key(left, right);
    std::size_t slot = first_slot(pair);
    while (entries_[slot].rank != never && entries_[slot].pair != pair) slot = (slot + 1) & mask_;
    return entries_[slot];
  }

 private:
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  std::size_t first_slot(std::uint64_t pair) const { return pair * 0x9E3779B97F4A7C15 >> shift_; }

  std::vector<Entry> entries_;  // a power of two, at most half full
  std::size_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace smlp
