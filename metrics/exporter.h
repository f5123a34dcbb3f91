// Serves a rank's metrics over HTTP, at /metrics, from threads of its own until it is destroyed. Owned by the
// worker, beside the RunMetrics it reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "metrics/gpu_meter.h"
#include "metrics/registry.h"

namespace smlp {

class Exporter {
 public:
  // `listen` is "host:port"; port 0 is any free one. Throws Error(configuration) when it can't be listened
  // on. With a meter, its GPU's readings are among the metrics.
  Exporter(const std::string& listen, const RunMetrics& metrics, std::unique_ptr<GpuMeter> gpu = nullptr);
  ~Exporter();
  Exporter(const Exporter&) = delete;
  Exporter& operator=(const Exporter&) = delete;

  // Where others find it: "127.0.0.1:43767", with this host's name when it listens on every address. Empty in a build
  // without prometheus-cpp, which serves nothing.
  const std::string& address() const noexcept { return address_; }

 private:
  struct Server;
  std::unique_ptr<Server> server_;
  std::string address_;
};

}  // namespace smlp
