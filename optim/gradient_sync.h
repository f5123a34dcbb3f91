// Sums gradients over the ranks that share them, as soon as the backward pass is done with them: replicated
// ones over the world, an expert's over its replicas. Neighbouring blocks are summed in one call until a
// bucket is full.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "params/parameter_store.h"

namespace smlp {

class GradientSync {
 public:
  // `blocks`: entries of the model's stack. Store, grid and backend outlive this.
  GradientSync(Backend& backend, ParameterStore& store, ProcessGrid& grid, int blocks);
  ~GradientSync();
  GradientSync(const GradientSync&) = delete;
  GradientSync& operator=(const GradientSync&) = delete;

  // As Model::backward() calls it in the last round of a step: the gradients of stack entry k are final.
  void block_done(int k);
  void finish();  // whatever is not summed yet; after it all gradients are

  // Adds the squared norm of the whole model's gradient to control[StepControl::squared_norm]: replicated
  // ones counted once, experts over the group that holds them all. Collective.
  void squared_norm(TensorView control);

  // For the step that begins: whether this rank's own gradients are finite before they are summed, which costs a pass
  // over them. own_finite(), after finish(): true where nobody watched.
  void watch_own(bool on) {
    watched_ = on;
    own_known_ = false;
  }
  bool own_finite() const;

 private:
  struct Run {  // elements of a segment whose gradients are final and not yet summed
    std::int64_t first = 0, last = 0;
  };
  void reduce(std::size_t segment);
  Communicator& sharers(const Segment& segment);

  Backend& backend_;
  ParameterStore& store_;
  ProcessGrid& grid_;
  std::vector<std::vector<Run>> runs_of_stage_;  // [stage][segment]; stage 0: embedding, last: head
  std::vector<Run> pending_;                     // [segment]
  std::vector<std::int64_t> summed_;             // [segment] elements so far, this step
  TensorView norms_;                             // f64 [2]: replicated, expert
  TensorView own_norm_;                          // f64 [1]: of this rank before the sums, this step
  bool watched_ = false, own_known_ = false;
};

}  // namespace smlp
