// Small models of every kind, trained by one rank or by those of the test program, on random tokens.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "tests/comm/ranks.h"
#include "tests/worker/small_job.h"
#include "worker/engine.h"

namespace smlp::test {

inline constexpr std::array every_kind = {"gmlp", "smlp", "transformer", "gshard", "switch", "base", "hash"};

enum class Ranks { one, over_mpi, staged, by_nccl };
std::unique_ptr<Communicator> join(Ranks ranks, Backend& backend);

// Of this rank: its own, if there are enough. The emulation's NCCL takes ranks that share one, a real one does not.
std::unique_ptr<Backend> gpu();
bool nccl_takes_all_ranks();

class SmallRun {
 public:
  SmallRun(JobConfig job, Ranks ranks, std::unique_ptr<Backend> backend);

  StepResult step();  // the next one
  std::int64_t steps() const { return steps_; }
  Engine& engine() { return *engine_; }
  std::function<void()> while_reading = [] {};

 private:
  JobConfig job_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::int32_t> tokens_;
  std::int64_t steps_ = 0;
};

}  // namespace smlp::test
