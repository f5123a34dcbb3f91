// What a rank does to itself in a drill (core/drill_plan.h): the faults that nobody can do to it from outside at a step
// and a place that a seed names. Owned by the Trainer; outside of a drill there is none, and the loop asks a null
// pointer.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "core/drill_plan.h"
#include "core/run_directory.h"
#include "params/parameter_store.h"

namespace smlp {

class DrillFaults {
 public:
  // nullptr where the environment names no drill. Throws Error(configuration) where it names another run's, or none.
  // `save_every`: how many steps a disk stays full.
  static std::unique_ptr<DrillFaults> of_environment(const RunDirectory& run, int attempt, int rank,
                                                     std::int64_t save_every);
  DrillFaults(const RunDirectory& run, int attempt, int rank, std::int64_t save_every);
  ~DrillFaults();
  DrillFaults(const DrillFaults&) = delete;
  DrillFaults& operator=(const DrillFaults&) = delete;

  // Before the step: rank 0, and so all, waits while the drill has not seen the steps done lately, and calls `wait` all the
  // while. A drill that is gone, or sees nothing for ten seconds, is waited for no longer.
  void stay_in_sight(std::int64_t step, const std::function<void()>& wait);
  // With every micro-batch of the step being taken, before gradients are summed over the ranks: slow, nan.
  void in_step(std::int64_t step, Backend& backend, ParameterStore& store);
  // Between the update and the comparison of replicas: bit_flip.
  void after_update(std::int64_t step, Backend& backend, std::span<const Piece> pieces);

 private:
  const Fault* due(FaultKind kind) const;
  bool strike(const Fault& fault) const;
  void on_disk(const char* operation);  // any thread: torn_write, full_disk
  void cut_off_my_shard() const;

  RunDirectory run_;
  DrillFolder folder_;
  int attempt_, rank_;
  std::int64_t save_every_;
  std::vector<Fault> mine_;
  std::atomic<std::int64_t> step_ = 0;        // being taken
  std::atomic<std::int64_t> full_until_ = 0;  // the disk is, up to this step
  std::int64_t slow_until_ = 0, slept_ = 0;
  double slow_seconds_ = 0;
  bool poisoned_ = false, out_of_sight_ = false;

  static std::atomic<DrillFaults*> at_the_disk;
};

}  // namespace smlp
