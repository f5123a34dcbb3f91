// Sums gradients over the ranks that share them, as soon as the backward pass is done with them: replicated ones over
// the world, an expert's over its replicas. Neighbouring blocks are summed in one call until a bucket is full.
//
// With `sharded` each of the ranks that hold a bucket gets only its part of the sum, updates that part of the values
// alone, and hands it to the others (ZeRO, stage 1).
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "optim/share.h"
#include "params/parameter_store.h"

namespace smlp {

class GradientSync {
 public:
  // `blocks`: entries of the model's stack. Store, grid and backend outlive this. `sharded`: of a store that was sealed
  // with as many parts as the world has ranks, or a multiple.
  GradientSync(Backend& backend, ParameterStore& store, ProcessGrid& grid, int blocks, bool sharded = false);
  ~GradientSync();
  GradientSync(const GradientSync&) = delete;
  GradientSync& operator=(const GradientSync&) = delete;

  const std::vector<Share>& shares() const { return shares_; }  // of the values, for this rank to update

  // As Model::backward() calls it in the last round of a step: the gradients of stack entry k are final. From the last
  // entry to the first.
  void block_done(int k);
  void finish();  // after it all gradients are summed, in this rank's shares

  // Adds the squared norm of the whole model's gradient to control[StepControl::squared_norm]: each element counted
  // once, whoever holds it. Collective.
  void squared_norm(TensorView control);
  void gather_values();  // after the update, where ranks have different shares: everyone's to everyone. Collective

  // For the step that begins: whether this rank's own gradients are finite before they are summed, which costs a pass
  // over them. own_finite(), after finish(): true where nobody watched.
  void watch_own(bool on) {
    watched_ = on;
    own_known_ = false;
  }
  bool own_finite() const;

 private:
  using Bucket = Share;  // elements that are summed in one call
  std::vector<std::vector<Bucket>> final_with_each_stage(int blocks) const;
  void cut_buckets(const std::vector<std::vector<Bucket>>& of_stages);
  void reduce(const Bucket& bucket);
  Communicator& sharers(std::size_t segment) const;
  Bucket own_part(const Bucket& bucket) const;

  Backend& backend_;
  ParameterStore& store_;
  ProcessGrid& grid_;
  bool sharded_;
  std::vector<std::vector<Bucket>> buckets_;  // [stage] whose end completes them; stage 0: embedding, last: head
  std::vector<Share> shares_;
  std::size_t stages_left_;  // of this step's backward pass
  TensorView norms_;         // f64 [2]: replicated, expert
  TensorView own_norm_;      // f64 [1]: of this rank before the sums, this step
  bool watched_ = false, own_known_ = false;
};

}  // namespace smlp
