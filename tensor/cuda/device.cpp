#include "tensor/cuda/device.h"

#include <fmt/format.h>

#include "core/error.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/kernels.h"

namespace smlp::cuda {

namespace {

const char* sentence(FaultKind kind) {
  switch (kind) {
    case FaultKind::index:
      return "an index of rows lies beyond the last row";
    case FaultKind::target:
      return "a target lies beyond the vocabulary";
    case FaultKind::column:
      return "an index of columns lies beyond the columns";
    case FaultKind::token:
      return "a slot holds a token that does not exist";
    case FaultKind::expert:
      return "a token chose an expert that does not exist";
    case FaultKind::slot:
      return "a choice sits in a slot beyond the last one";
    case FaultKind::table:
      return "an index lies outside of its table";
    case FaultKind::none:
      break;
  }
  return "a kernel left a word that nobody knows";
}

// The runtime says the same where there is no driver at all.
void refuse_older_driver() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "the driver's version could not be asked for");
  check(cudaRuntimeGetVersion(&runtime), "the runtime's version could not be asked for");
  if (driver == 0) return;
  const auto text = [](int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); };
  throw Error(ExitCode::unavailable,
              fmt::format("the driver of this machine's GPUs is for CUDA {} at most, and this smlp was built with CUDA {}: have a "
                          "newer driver installed, build smlp with an older CUDA toolkit, or run on the CPU with "
                          "cluster.device = \"cpu\"",
                          text(driver), text(runtime)));
}

constexpr const char* less_memory = "use more ranks, a smaller micro-batch or a smaller model (`smlp plan` counts bytes)";

}  // namespace

void refuse_for_want_of_memory(const char* what, const char* words) {
  throw Error(ExitCode::unavailable,
              fmt::format("cuda: {}: {} (out of memory on the GPU, or of pinned memory on its host); {}", what, words,
                          less_memory));
}

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next call reports it again
  if (status == cudaErrorMemoryAllocation) refuse_for_want_of_memory(what, cudaGetErrorString(status));
  throw Error(ExitCode::fault, fmt::format("cuda: {}: {}", what, cudaGetErrorString(status)));
}

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count;
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) refuse_older_driver();
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver || status == cudaErrorStubLibrary)
    return 0;
  throw Error(ExitCode::unavailable,
              fmt::format("the GPUs of this machine could not be counted: {}; `nvidia-smi` says more, and where NVSwitch "
                          "joins them its fabric manager must run (`systemctl status nvidia-fabricmanager`); run on the "
                          "CPU with cluster.device = \"cpu\", or on another machine",
                          cudaGetErrorString(status)));
}

int capability(int device) {
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "a GPU's capability could not be asked for");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "a GPU's capability could not be asked for");
  return 10 * major + minor;
}

Device::Device(int ordinal) : ordinal_(ordinal) {
  const int count = device_count();
  if (count == 0) {
    throw Error(ExitCode::unavailable,
                "there is no GPU here, or no driver for it (nvidia-smi says more); run on the CPU with "
                "cluster.device = \"cpu\", or on another machine");
  }
  if (ordinal < 0 || ordinal >= count) {
    throw Error(ExitCode::unavailable,
                fmt::format("there is no GPU {} here: this process sees {} of them, counted from 0 "
                            "(CUDA_VISIBLE_DEVICES decides which)",
                            ordinal, count));
  }
  check(cudaSetDevice(ordinal), "the device could not be chosen");
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "no stream could be made");
  for (auto* event : {&began_, &ended_})
    check(cudaEventCreateWithFlags(event, cudaEventDefault), "no event could be made");
  int host_pages = 0;
  check(cudaDeviceGetAttribute(&host_pages, cudaDevAttrPageableMemoryAccessUsesHostPageTables, ordinal),
        "the device could not be asked how it reads memory of the host");
  reads_host_pages_ = host_pages != 0;
  void* word = nullptr;
  check(cudaHostAlloc(&word, sizeof(int), cudaHostAllocMapped), "no pinned memory could be had");
  fault_ = static_cast<int*>(word);
  *fault_ = 0;
}

Device::~Device() {
  cudaStreamSynchronize(stream_);
  cudaEventDestroy(began_);
  cudaEventDestroy(ended_);
  cudaFreeHost(fault_);
  cudaStreamDestroy(stream_);
}

void* Device::allocate(std::int64_t bytes) {
  not_recorded("memory is allocated");
  ++memory_changes_;
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<std::size_t>(bytes > 0 ? bytes : 1));
  if (status == cudaSuccess) return memory;
  if (status != cudaErrorMemoryAllocation) check(status, "memory could not be taken");
  cudaGetLastError();
  throw Error(
      ExitCode::unavailable,
      fmt::format("the GPU has no {} bytes of memory left ({}); {}", bytes, cudaGetErrorString(status), less_memory));
}

void Device::release(void* memory) noexcept {
  ++memory_changes_;
  if (recording_) {
    released_.push_back(memory);
  } else {
    cudaFree(memory);
  }
}

void* Device::allocate_host(std::int64_t bytes) {
  not_recorded("pinned memory is allocated");
  void* memory = nullptr;
  const cudaError_t status =
      cudaHostAlloc(&memory, static_cast<std::size_t>(bytes > 0 ? bytes : 1), cudaHostAllocDefault);
  if (status == cudaSuccess) return memory;
  if (status != cudaErrorMemoryAllocation && status != cudaErrorOperatingSystem)
    check(status, "pinned memory could not be taken");
  cudaGetLastError();
  throw Error(ExitCode::unavailable,
              fmt::format("the host has no {} bytes of memory that a GPU may copy from ({}); `ulimit -l` must be "
                          "unlimited, or the job needs more memory",
                          bytes, cudaGetErrorString(status)));
}

void Device::release_host(void* memory) noexcept {
  if (memory == nullptr) return;
  cudaStreamSynchronize(stream_);  // an upload may still read it
  cudaFreeHost(memory);
}

std::string Device::id() const {
  char text[32] = "";
  check(cudaDeviceGetPCIBusId(text, sizeof text, ordinal_), "the device has no address");
  return text;
}

void Device::wait() {
  not_recorded("the host waits for the device");
  check(cudaStreamSynchronize(stream_), "the work on the device failed");
  const auto kind = static_cast<FaultKind>(*fault_);
  if (kind == FaultKind::none) return;
  *fault_ = 0;
  throw Error(ExitCode::fault, fmt::format("cuda: {}", sentence(kind)));
}

double Device::timed(const std::function<void()>& work) {
  constexpr const char* failed = "the time of the work on the device could not be taken";
  wait();
  check(cudaEventRecord(began_, stream_), failed);
  work();
  check(cudaEventRecord(ended_, stream_), failed);
  wait();
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, began_, ended_), failed);
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace smlp::cuda
