// An Engine fed with random tokens, for benchmarks of whole steps: all micro-batches of one have the same.
#pragma once

#include <memory>
#include <vector>

#include "worker/engine.h"

namespace smlp {

// The groups of the ranks that mpirun started, or of one rank when it did not.
ProcessGrid grid_for(const JobConfig& job, Backend& backend);

class BenchEngine {
 public:
  BenchEngine(const JobConfig& job, std::unique_ptr<Backend> backend, ProcessGrid grid);

  struct Step {
    double seconds = 0;
    PhaseSeconds phases;
  };
  // The step with the median time, the upper one of two: what its phases add up to is its own. `steps` is not empty.
  static Step middle(const std::vector<Step>& steps);
  void warm_up();  // the steps that allocate and set up kernels
  Step step();
  std::int64_t tokens_per_step() const;  // of all ranks
  Engine& engine() { return *engine_; }

 private:
  JobConfig job_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::int32_t> tokens_, targets_;
  std::int64_t steps_ = 0;
};

}  // namespace smlp
