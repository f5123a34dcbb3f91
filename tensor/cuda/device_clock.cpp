#include "tensor/cuda/device_clock.h"

namespace smlp::cuda {

namespace {
constexpr std::size_t most_marks = std::size_t{1} << 20;  // of a device that nobody ever waits for
}

DeviceClock::~DeviceClock() {
  for (const auto& mark : marks_) cudaEventDestroy(mark.event);
  for (const auto event : spare_) cudaEventDestroy(event);
}

void DeviceClock::changed(Phase, Phase to) {
  if (broken_) return;
  cudaEvent_t event = nullptr;
  if (!spare_.empty()) {
    event = spare_.back();
    spare_.pop_back();
  } else if (marks_.size() >= most_marks || cudaEventCreateWithFlags(&event, cudaEventDefault) != cudaSuccess) {
    return give_up();
  }
  marks_.push_back({event, to});
  if (cudaEventRecord(event, stream_) != cudaSuccess) give_up();
}

PhaseSeconds DeviceClock::take() {
  PhaseSeconds seconds;
  std::size_t read = 0;
  for (; !broken_ && read + 1 < marks_.size(); ++read) {
    const auto &began = marks_[read], &ended = marks_[read + 1];
    cudaError_t status = cudaEventQuery(ended.event);
    if (status == cudaErrorNotReady) {
      cudaGetLastError();  // or the next call reports it
      break;
    }
    float milliseconds = 0;
    if (status == cudaSuccess) status = cudaEventElapsedTime(&milliseconds, began.event, ended.event);
    if (status != cudaSuccess) {
      give_up();
      break;
    }
    seconds.add(began.phase, static_cast<double>(milliseconds) * 1e-3);
    spare_.push_back(began.event);
  }
  marks_.erase(marks_.begin(), marks_.begin() + static_cast<std::ptrdiff_t>(read));
  return seconds;
}

void DeviceClock::give_up() {
  cudaGetLastError();
  broken_ = true;
}

}  // namespace smlp::cuda
