#include "tensor/arena.h"

#include <algorithm>

namespace smlp {

namespace {
constexpr std::int64_t alignment = 64;
constexpr std::int64_t least_block = std::int64_t{1} << 20;
}  // namespace

Arena::~Arena() {
  for (const auto& block : blocks_) backend_.release(block.memory);
}

TensorView Arena::take(Shape shape, DType type) {
  const std::int64_t wanted = (shape.size() * size_of(type) + alignment - 1) / alignment * alignment;
  while (mark_.block < blocks_.size() && mark_.used + wanted > blocks_[mark_.block].bytes) {
    mark_ = {mark_.block + 1, 0, mark_.before + mark_.used};
  }
  if (mark_.block == blocks_.size()) {
    const std::int64_t bytes = std::max({wanted, least_block, mark_.before / (reserved_ ? 16 : 2)});
    blocks_.push_back({backend_.allocate(bytes), bytes});
    ++allocations_;
  }
  TensorView view(static_cast<char*>(blocks_[mark_.block].memory) + mark_.used, shape, type);
  mark_.used += wanted;
  peak_ = std::max(peak_, mark_.before + mark_.used);
  return view;
}

void Arena::reserve(std::int64_t bytes) {
  reserved_ = true;
  blocks_.push_back({backend_.allocate(bytes), bytes});
  ++allocations_;
}

void Arena::reset() {
  mark_ = {};
  if (blocks_.size() < 2) return;
  std::int64_t bytes = 0;
  for (const auto& block : blocks_) {
    backend_.release(block.memory);
    bytes += block.bytes;
  }
  blocks_.clear();  // whatever the next lines throw
  if (!reserved_) bytes = peak_;
  blocks_.push_back({backend_.allocate(bytes), bytes});
  ++allocations_;
}

}  // namespace smlp
