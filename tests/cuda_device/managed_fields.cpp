// Fields that the GPU reaches as the host does.
#include <cuda_runtime.h>

#include <memory_resource>
#include <new>

#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

class ManagedMemory final : public std::pmr::memory_resource {
  void* do_allocate(std::size_t bytes, std::size_t) override {
    void* memory = nullptr;
    if (cudaMallocManaged(&memory, bytes) != cudaSuccess) throw std::bad_alloc();
    return memory;
  }
  void do_deallocate(void* memory, std::size_t, std::size_t) override { cudaFree(memory); }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

const bool ready = [] {
  static ManagedMemory memory;
  std::pmr::set_default_resource(&memory);
  settle_fields = [] { cudaDeviceSynchronize(); };
  return true;
}();

}  // namespace
}  // namespace smlp::test
