// Copies from a device to the host on a stream of their own, beside what the backend computes. Owned by the backend.
// Used by its thread, but for wait(), which is anybody's.
#pragma once

#include <cuda_runtime.h>

#include <span>

#include "tensor/backend.h"

namespace smlp::cuda {

class SideDownloads {
 public:
  // Of the device that is the calling thread's, and whose number is `device`; `computing`: the backend's stream.
  SideDownloads(int device, cudaStream_t computing);
  ~SideDownloads();
  SideDownloads(const SideDownloads&) = delete;
  SideDownloads& operator=(const SideDownloads&) = delete;

  void start(std::span<const Download> downloads);
  void put_behind();      // what the backend enqueues next; nothing where it was put behind them already
  void wait();            // throws Error(fault) where one of them failed
  void drain() noexcept;  // the same, whatever became of them

 private:
  int device_;
  cudaStream_t computing_, copying_ = nullptr;
  cudaEvent_t computed_ = nullptr, copied_ = nullptr;
  bool beside_ = false;  // the backend's stream does not wait for the last of them yet
};

}  // namespace smlp::cuda
