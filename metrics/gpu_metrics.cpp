#include "metrics/gpu_metrics.h"

#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

namespace smlp {

namespace {

class GpuMetrics final : public prometheus::Collectable {
 public:
  GpuMetrics(std::unique_ptr<GpuMeter> meter, int rank) : meter_(std::move(meter)), rank_(std::to_string(rank)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    const auto reading = meter_->read();
    std::vector<prometheus::MetricFamily> families;
    const auto add = [&](const char* name, const char* help, const std::optional<double>& value) {
      if (!value) return;
      prometheus::ClientMetric metric;
      metric.label = {{"rank", rank_}};
      metric.gauge.value = *value;
      families.push_back({name, help, prometheus::MetricType::Gauge, {metric}});
    };
    add("smlp_gpu_memory_used_bytes", "Memory of this rank's GPU in use, by all processes", reading.memory_used_bytes);
    add("smlp_gpu_memory_bytes", "Memory of this rank's GPU", reading.memory_bytes);
    add("smlp_gpu_power_watts", "What this rank's GPU draws", reading.power_watts);
    add("smlp_gpu_busy_share", "Share of the last sampling period in which a kernel ran on this rank's GPU", reading.busy_share);
    return families;
  }

 private:
  std::unique_ptr<GpuMeter> meter_;
  std::string rank_;
};

}  // namespace

std::shared_ptr<prometheus::Collectable> gpu_metrics(std::unique_ptr<GpuMeter> meter, int rank) {
  return std::make_shared<GpuMetrics>(std::move(meter), rank);
}

}  // namespace smlp
