// Bytes at places of a large, mostly empty range: what is never written costs nothing and reads as zeros.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

namespace smlp {

class SparseBytes {
 public:
  void write(std::int64_t position, std::span<const std::byte> bytes);
  void read(std::int64_t position, std::span<std::byte> bytes) const;  // zeros where nothing was written
  std::int64_t end() const { return end_; }
  void set_end(std::int64_t end) { end_ = end; }
  void clear() {
    pages_.clear();
    end_ = 0;
  }

 private:
  static constexpr std::int64_t page_bytes = 4096;
  using Page = std::array<std::byte, page_bytes>;
  std::map<std::int64_t, std::unique_ptr<Page>> pages_;
  std::int64_t end_ = 0;
};

}  // namespace smlp
