// What NVIDIA's management library (NVML) says of one GPU: its memory, power and how busy it is. The library comes with the
// driver, so it is opened when the program runs and never linked; where there is none there is no meter.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace smlp {

// Of all processes on the GPU. Empty: this GPU does not tell.
struct GpuReading {
  std::optional<double> memory_used_bytes, memory_bytes;
  std::optional<double> power_watts;
  std::optional<double> busy_share;  // of the driver's last sampling period, 1/6 to 1 s: time in which a kernel ran
};

class GpuMeter {
 public:
  // By the GPU's place on the PCI bus, "0000:3b:00.0": NVML and CUDA number GPUs each in its own way. Null where the library
  // or the GPU is missing; `why_not` then says so.
  static std::unique_ptr<GpuMeter> open(const std::string& bus_id, std::string* why_not = nullptr);
  ~GpuMeter();
  GpuMeter(const GpuMeter&) = delete;
  GpuMeter& operator=(const GpuMeter&) = delete;

  GpuReading read() const;  // from any thread

 private:
  struct Library;
  GpuMeter(std::unique_ptr<Library> library, void* device);
  std::unique_ptr<Library> library_;
  void* device_;
};

}  // namespace smlp
