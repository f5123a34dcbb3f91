// A GPU's readings as metrics, taken when somebody scrapes: the loop never waits for them, and they stay true while it hangs.
#pragma once

#include <prometheus/collectable.h>

#include <memory>

#include "metrics/gpu_meter.h"

namespace smlp {

std::shared_ptr<prometheus::Collectable> gpu_metrics(std::unique_ptr<GpuMeter> meter, int rank);

}  // namespace smlp
