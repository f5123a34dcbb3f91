// Fields that the GPU reaches as the host does: managed memory, or the host's own where a virtual GPU has none.
#include <cuda_runtime.h>

#include <cstdio>
#include <memory_resource>
#include <new>
#include <optional>

#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

bool has_managed_memory() {
  int concurrent = 0;
  void* memory = nullptr;
  const bool has = cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, 0) == cudaSuccess && concurrent != 0 &&
                   cudaMallocManaged(&memory, 1) == cudaSuccess;
  cudaFree(memory);
  cudaGetLastError();
  std::printf("fields lie in %s\n", has ? "managed memory" : "pinned memory of the host: there is no managed memory");
  return has;
}

class ReachableMemory final : public std::pmr::memory_resource {
  void* do_allocate(std::size_t bytes, std::size_t) override {
    if (!managed_) managed_ = has_managed_memory();
    void* memory = nullptr;
    const cudaError_t status = *managed_ ? cudaMallocManaged(&memory, bytes) : cudaHostAlloc(&memory, bytes, cudaHostAllocMapped);
    if (status != cudaSuccess) throw std::bad_alloc();
    return memory;
  }
  void do_deallocate(void* memory, std::size_t, std::size_t) override { *managed_ ? cudaFree(memory) : cudaFreeHost(memory); }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  std::optional<bool> managed_;  // asked for the first field: where there is no GPU there is none
};

const bool ready = [] {
  static ReachableMemory memory;
  std::pmr::set_default_resource(&memory);
  settle_fields = [] { cudaDeviceSynchronize(); };
  return true;
}();

}  // namespace
}  // namespace smlp::test
