// One CUDA device as a backend uses it: its stream, its memory, and the word in which kernels leave what was
// wrong with the indices they met. Owned by the backend; used by one thread.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensor/recording.h"

namespace smlp::cuda {

class Device {
 public:
  // Throws Error(unavailable) where there is no such device, in a sentence that names those there are.
  explicit Device(int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  cudaStream_t stream() const noexcept { return stream_; }
  int* fault() const noexcept { return fault_; }
  // Where the GPU reads memory of the host by the host's own page tables (Grace Hopper), nobody promises that an upload has read
  // its source when it returns: the runtime need not copy it to memory of its own before.
  bool reads_host_pages() const noexcept { return reads_host_pages_; }
  std::string id() const;  // "0000:65:00.0", alike in every process whatever CUDA_VISIBLE_DEVICES is
  void* allocate(std::int64_t bytes);
  void release(void* memory) noexcept;
  void* allocate_host(std::int64_t bytes);  // pinned
  void release_host(void* memory) noexcept;
  // For everything enqueued so far; throws Error(fault) when a kernel failed or met an index that points
  // nowhere.
  void wait();
  double timed(const std::function<void()>& work);  // seconds on the stream; waits before and after

  // --- work that is kept, as a CUDA graph; see tensor/recording.h -------------------------------------------
  bool recording() const noexcept { return recording_; }
  // Throws Error(fault) while work is recorded: what the caller is about to do can't be part of it.
  void not_recorded(const char* what) const;
  // The calls that `work` makes, none of which has run. Throws what `work` threw, or Error(fault), and leaves the stream
  // as it was.
  std::unique_ptr<Recording::Kept> record(const std::function<void()>& work);
  // Hands over what record() gave; throws Error(fault), and then none of it runs.
  void launch(Recording::Kept& kept);
  std::int64_t memory_changes() const noexcept { return memory_changes_; }  // allocations and releases so far

 private:
  int ordinal_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t began_ = nullptr, ended_ = nullptr;  // of timed()
  int* fault_ = nullptr;  // pinned host memory that the device writes to
  bool recording_ = false, reads_host_pages_ = false;
  std::int64_t memory_changes_ = 0;
  std::vector<void*> released_;  // while work was recorded, when nothing may be freed
};

// 0 where there is no device, or no driver; any other failure throws Error(unavailable).
int device_count();
int capability(int device);  // 70 of a V100, 90 of an H200

}  // namespace smlp::cuda
