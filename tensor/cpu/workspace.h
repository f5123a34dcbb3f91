// Memory that grows to what was asked for most and is then kept: 64-byte aligned, contents undefined.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace smlp::cpu {

// Throws Error with the size when there is no memory. Large pieces ask the kernel for huge pages.
void* allocate_aligned(std::int64_t bytes);

class Workspace {
 public:
  void* take(std::int64_t bytes) {  // what was taken before is void
    if (bytes > size_) {
      memory_.reset();
      size_ = 0;  // also where there is no memory
      memory_.reset(allocate_aligned(bytes));
      size_ = bytes;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(void* memory) const noexcept { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  std::int64_t size_ = 0;
};

}  // namespace smlp::cpu
