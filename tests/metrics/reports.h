// Numbers of a small made-up run, for the tests of metrics.
#pragma once

#include "metrics/registry.h"

namespace smlp::test {

inline RunIdentity small_run(int rank) {
  return {.rank = rank,
          .attempt = 2,
          .version = "0.1.0",
          .device = "cpu",
          .isa = "avx2",
          .blocks = 6,
          .experts = 4};
}

inline StepReport small_step(std::int64_t step) {
  return {
      .step = step,
      .tokens = 2048,
      .loss = 5.5,
      .learning_rate = 0.25,
      .gradient_norm = 1.5,
      .seconds = 0.5,
      .tokens_per_second = 4096,
      .flops_share = 0.75,
      .phase_seconds = {{"forward", 0.125}, {"backward", 0.25}, {"exchange", 0.0625}},
      .blocks = {{.block = 1, .expert_tokens = {512, 512, 512, 512}, .dropped = 0, .assignment_rounds = 7},
                 {.block = 4, .expert_tokens = {1024, 1024, 0, 0}, .dropped = 3, .assignment_rounds = 9}},
      .evaluation = {}};
}

}  // namespace smlp::test
