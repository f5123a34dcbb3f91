// In place of cuDNN: flash attention in plain loops, with rules that a test may change at any time.
#pragma once

#include <functional>
#include <string>

#include "tensor/cuda/flash_attention.h"

namespace smlp::emulation {

struct FlashRules {
  std::string absent;  // why there is no library; empty: there is
  std::function<std::string(const cuda::FlashCall&)> declines = [](const auto&) { return std::string(); };
  std::function<std::int64_t(const cuda::FlashCall&)> workspace = [](const auto&) { return std::int64_t{1000}; };
  cuda::CudnnVersions version{91900, 13200};
  bool fails_recorded = false;   // what is called while its stream is captured
  int runs_before_failure = -1;  // of a plan; then it writes NaN and throws. Negative: never
};
FlashRules& flash_rules();

struct FlashCounts {
  int asked = 0, plans = 0, forward = 0, backward = 0;  // libraries, plans and runs so far
};
FlashCounts& flash_counts();

}  // namespace smlp::emulation
