// Stands in for libnvidia-ml.so.1: one GPU at 0000:3B:00.0, whose power rises by a watt from reading to reading. FAKE_NVML
// makes it fail: "start", or "power" and "utilization", which this GPU then does not tell.
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int success = 0, uninitialized = 1, not_supported = 3, not_found = 6;
int users = 0;
unsigned milliwatts = 300000;

bool fails(const char* what) {
  const char* word = std::getenv("FAKE_NVML");
  return word != nullptr && std::string(word).find(what) != std::string::npos;
}

}  // namespace

extern "C" {

int nvmlInit_v2() {
  if (fails("start")) return 9;  // the driver is not loaded
  ++users;
  return success;
}

int nvmlShutdown() {
  --users;
  return success;
}

int fake_nvml_users() { return users; }

int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  if (users == 0) return uninitialized;
  if (std::strcmp(id, "0000:3B:00.0") != 0) return not_found;
  *device = &milliwatts;
  return success;
}

int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* total_free_used) {
  if (users == 0 || device != &milliwatts) return uninitialized;
  total_free_used[0] = 80ULL << 30;
  total_free_used[1] = 50ULL << 30;
  total_free_used[2] = 30ULL << 30;
  return success;
}

int nvmlDeviceGetPowerUsage(void* device, unsigned* power) {
  if (users == 0 || device != &milliwatts) return uninitialized;
  if (fails("power")) return not_supported;
  *power = milliwatts += 1000;
  return success;
}

int nvmlDeviceGetUtilizationRates(void* device, unsigned* gpu_memory) {
  if (users == 0 || device != &milliwatts) return uninitialized;
  if (fails("utilization")) return not_supported;
  gpu_memory[0] = 87;
  gpu_memory[1] = 40;
  return success;
}
}
