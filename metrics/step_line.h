// A step's numbers as one line of metrics.jsonl.
#pragma once

#include "metrics/registry.h"

namespace smlp {

struct RunTotals {
  double steps = 0, tokens = 0;  // of the run so far, those before this attempt included
  double checkpoint_step = 0;  // NaN: there is none
  double checkpoint_stall_seconds = 0, checkpoint_failures = 0;  // of this attempt
};

nlohmann::json step_line(const StepReport& report, std::int64_t attempt, double unix_time, const RunTotals& totals);

}  // namespace smlp
