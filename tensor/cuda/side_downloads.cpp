#include "tensor/cuda/side_downloads.h"

#include <utility>

#include "core/error.h"
#include "tensor/cuda/check.h"

namespace smlp::cuda {

SideDownloads::SideDownloads(int device, cudaStream_t computing) : device_(device), computing_(computing) {
  check(cudaStreamCreateWithFlags(&copying_, cudaStreamNonBlocking), "no stream could be made for copies");
  check(cudaEventCreateWithFlags(&computed_, cudaEventDisableTiming), "no event could be made for copies");
  // Who waits for it sleeps: the thread that writes a checkpoint has no core of its own.
  check(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming | cudaEventBlockingSync),
        "no event could be made for copies");
}

SideDownloads::~SideDownloads() {
  drain();
  cudaEventDestroy(computed_);
  cudaEventDestroy(copied_);
  cudaStreamDestroy(copying_);
}

void SideDownloads::start(std::span<const Download> downloads) {
  constexpr const char* failed = "copies to the host could not be put behind the device's work";
  check(cudaEventRecord(computed_, computing_), failed);
  check(cudaStreamWaitEvent(copying_, computed_, 0), failed);
  beside_ = true;
  for (const auto& [from, host] : downloads) {
    if (from.size() == 0) continue;
    expect(from.contiguous(), "start_downloads: a view is strided");
    check(cudaMemcpyAsync(host, from.data, static_cast<std::size_t>(from.bytes()), cudaMemcpyDeviceToHost, copying_),
          "a copy to the host could not be started");
  }
  check(cudaEventRecord(copied_, copying_), "copies to the host could not be marked");
}

void SideDownloads::put_behind() {
  if (!std::exchange(beside_, false)) return;
  check(cudaStreamWaitEvent(computing_, copied_, 0), "the device's work could not be put behind copies to the host");
}

void SideDownloads::wait() {
  check(cudaSetDevice(device_), "the device could not be chosen");  // a thread begins with device 0
  check(cudaEventSynchronize(copied_), "copies to the host failed");
}

void SideDownloads::drain() noexcept { cudaStreamSynchronize(copying_); }

}  // namespace smlp::cuda
