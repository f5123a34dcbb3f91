#include "checkpoint/sparse_bytes.h"

#include <algorithm>
#include <cstring>

namespace smlp {

void SparseBytes::write(std::int64_t position, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto within = static_cast<std::size_t>(position % page_bytes);
    const auto part = std::min(bytes.size(), static_cast<std::size_t>(page_bytes) - within);
    auto& page = pages_[position / page_bytes];
    if (!page) page = std::make_unique<Page>();
    std::memcpy(page->data() + within, bytes.data(), part);
    bytes = bytes.subspan(part);
    position += static_cast<std::int64_t>(part);
  }
}

void SparseBytes::read(std::int64_t position, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const auto within = static_cast<std::size_t>(position % page_bytes);
    const auto part = std::min(bytes.size(), static_cast<std::size_t>(page_bytes) - within);
    const auto page = pages_.find(position / page_bytes);
    if (page == pages_.end()) {
      std::memset(bytes.data(), 0, part);
    } else {
      std::memcpy(bytes.data(), page->second->data() + within, part);
    }
    bytes = bytes.subspan(part);
    position += static_cast<std::int64_t>(part);
  }
}

}  // namespace smlp
