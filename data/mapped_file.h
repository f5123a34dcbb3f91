// A whole file in memory, read-only, through mmap: pages are shared between processes and dropped by the
// kernel when memory is short. Owned by whoever constructs it. The file must not shrink while it is mapped.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace smlp {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // Error(configuration) when missing, io_failed otherwise
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace smlp
