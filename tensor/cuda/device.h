// One CUDA device as a backend uses it: its stream, its memory, and the word in which kernels leave what was
// wrong with the indices they met. Owned by the backend; used by one thread.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <string>

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
  std::string id() const;  // "0000:65:00.0", alike in every process whatever CUDA_VISIBLE_DEVICES is
  void* allocate(std::int64_t bytes);
  void release(void* memory) noexcept;
  void* allocate_host(std::int64_t bytes);  // pinned
  void release_host(void* memory) noexcept;
  // For everything enqueued so far; throws Error(fault) when a kernel failed or met an index that points
  // nowhere.
  void wait();
  double timed(const std::function<void()>& work);  // seconds on the stream; waits before and after

 private:
  int ordinal_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t began_ = nullptr, ended_ = nullptr;  // of timed()
  int* fault_ = nullptr;  // pinned host memory that the device writes to
};

// 0 where there is no device, or no driver; any other failure throws Error(unavailable).
int device_count();

}  // namespace smlp::cuda
