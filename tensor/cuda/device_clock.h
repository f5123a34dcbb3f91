// Seconds of a step by phase on a device: events on the backend's stream, where one phase ends and the next begins. They
// are read once the device has passed them, so that nobody waits; what a phase has is the time between the two, in which
// the device computed, or waited for the host or for other ranks. Owned by the backend, used by its thread.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "tensor/phase_clock.h"

namespace smlp::cuda {

class DeviceClock final : public PhaseClock {
 public:
  explicit DeviceClock(cudaStream_t stream) : stream_(stream) {}
  ~DeviceClock() override;
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;

  PhaseSeconds take() override;

 private:
  struct Mark {
    cudaEvent_t event;
    Phase phase;  // that begins here
  };
  void changed(Phase from, Phase to) override;
  void give_up();

  cudaStream_t stream_;
  std::vector<Mark> marks_;  // not read yet, but for the first where others follow
  std::vector<cudaEvent_t> spare_;
  bool broken_ = false;  // clocks end no job: all phases have 0 s from now on
};

}  // namespace smlp::cuda
