// The runtime's calls on devices and their memory, which is the host's.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "tests/cuda_emulation/emulator.h"
#include "tests/cuda_emulation/streams.h"

namespace smlp::emulation {
namespace {
int devices = 1, driver_version = 0;
std::size_t device_memory = default_device_memory;
cudaError_t driver_error = cudaSuccess;
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}
}  // namespace

void set_devices(int count) { devices = count; }
void set_device_memory(std::size_t bytes) { device_memory = bytes; }
void set_driver_version(int version) { driver_version = version; }
void set_driver_error(int error) { driver_error = static_cast<cudaError_t>(error); }
}  // namespace smlp::emulation

using smlp::emulation::device_memory;
using smlp::emulation::devices;
using smlp::emulation::driver_error;
using smlp::emulation::last_error;
using smlp::emulation::result;

cudaError_t cudaDriverGetVersion(int* version) {
  *version = smlp::emulation::driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  if (driver_error != cudaSuccess) return result(driver_error);
  if (devices == 0)
    return result(cudaErrorInsufficientDriver);  // and leaves *count alone, as a machine without a driver
  *count = devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return result(device >= 0 && device < devices ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount                         ? 4
           : attribute == cudaDevAttrComputeCapabilityMajor                    ? smlp::emulation::capability() / 10
           : attribute == cudaDevAttrPageableMemoryAccessUsesHostPageTables    ? smlp::emulation::reads_host_pages()
                                                                               : 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  std::snprintf(text, static_cast<std::size_t>(length), "0000:%02x:00.0", 0x10 + device);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = nullptr;
  if (driver_error != cudaSuccess) return result(driver_error);
  if (smlp::emulation::breaks_capture()) return result(cudaErrorStreamCaptureUnsupported);
  if (bytes > (std::size_t{1} << 40) || posix_memalign(memory, 256, bytes) != 0)
    return result(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xFF, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (smlp::emulation::breaks_capture()) return result(cudaErrorStreamCaptureUnsupported);
  smlp::emulation::finish_all();
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* all) {
  *free = *all = device_memory;
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  const cudaError_t status = smlp::emulation::can_pin(bytes) ? cudaMalloc(memory, bytes) : result(cudaErrorMemoryAllocation);
  if (status == cudaSuccess) smlp::emulation::pinned(*memory, bytes);
  return status;
}

cudaError_t cudaFreeHost(void* memory) {
  smlp::emulation::pinned(memory, 0);
  return cudaFree(memory);
}

cudaError_t cudaStreamQuery(cudaStream_t) {
  return result(smlp::emulation::breaks_capture() ? cudaErrorStreamCaptureUnsupported : driver_error);
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    default:
      return "an error of the emulation";
  }
}
