#include "metrics/gpu_meter.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <utility>

namespace smlp {

namespace {

constexpr const char* library_name = "libnvidia-ml.so.1";
constexpr int success = 0;

// NVML's own, as its interface has them since CUDA 8; its header is not needed.
struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;  // percent
};

}  // namespace

struct GpuMeter::Library {
  void* handle = nullptr;
  bool started = false;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*by_bus_id)(const char*, void**) = nullptr;
  int (*memory)(void*, Memory*) = nullptr;
  int (*power)(void*, unsigned*) = nullptr;  // milliwatts
  int (*utilization)(void*, Utilization*) = nullptr;

  ~Library() {
    if (started) shutdown();
    if (handle != nullptr) dlclose(handle);
  }

  template <class Call>
  bool find(const char* name, Call*& call) {
    call = reinterpret_cast<Call*>(dlsym(handle, name));
    return call != nullptr;
  }

  // Empty: ready.
  std::string start() {
    handle = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return fmt::format("there is no {}", library_name);
    const bool whole = find("nvmlInit_v2", init) && find("nvmlShutdown", shutdown) &&
                       find("nvmlDeviceGetHandleByPciBusId_v2", by_bus_id) && find("nvmlDeviceGetMemoryInfo", memory) &&
                       find("nvmlDeviceGetPowerUsage", power) && find("nvmlDeviceGetUtilizationRates", utilization);
    if (!whole) return fmt::format("{} lacks a call that is needed", library_name);
    const int status = init();
    started = status == success;
    return started ? "" : fmt::format("{} does not start (status {})", library_name, status);
  }
};

std::unique_ptr<GpuMeter> GpuMeter::open(const std::string& bus_id, std::string* why_not) {
  auto library = std::make_unique<Library>();
  auto reason = library->start();
  void* device = nullptr;
  if (reason.empty()) {
    const int status = library->by_bus_id(bus_id.c_str(), &device);
    if (status == success) return std::unique_ptr<GpuMeter>(new GpuMeter(std::move(library), device));
    reason = fmt::format("{} knows no GPU at {} (status {})", library_name, bus_id, status);
  }
  if (why_not != nullptr) *why_not = reason;
  return nullptr;
}

GpuMeter::GpuMeter(std::unique_ptr<Library> library, void* device) : library_(std::move(library)), device_(device) {}
GpuMeter::~GpuMeter() = default;

GpuReading GpuMeter::read() const {
  GpuReading reading;
  if (Memory memory{}; library_->memory(device_, &memory) == success) {
    reading.memory_used_bytes = static_cast<double>(memory.used);
    reading.memory_bytes = static_cast<double>(memory.total);
  }
  if (unsigned milliwatts = 0; library_->power(device_, &milliwatts) == success) reading.power_watts = milliwatts / 1e3;
  if (Utilization share{}; library_->utilization(device_, &share) == success) reading.busy_share = share.gpu / 1e2;
  return reading;
}

}  // namespace smlp
