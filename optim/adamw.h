// AdamW over the segments of a ParameterStore, or this rank's share of them, with the state it owns: moving averages m
// and v, and where values are 16-bit an f32 master of each. One step of the loop:
//   adamw.prepare(rate, gradient_scale);                      // the step's scalars go to the device
//   sync.squared_norm(adamw.control());                       // and the norm, computed there
//   adamw.apply();                                            // leaves all alone when the norm is not finite
//   sync.gather_values();                                     // where other ranks update the other shares
//   adamw.finish(adamw.squared_norm());                       // counts the update, if it was one
#pragma once

#include <cstdint>
#include <vector>

#include "optim/share.h"

namespace smlp {

class AdamW {
 public:
  // Over a sealed store, which outlives it. Masters start as the values are: see reset_masters(). No parameter lies in
  // two shares, and every segment has one.
  AdamW(Backend& backend, ParameterStore& store, const AdamWSettings& settings, const std::vector<Share>& shares);
  AdamW(Backend& backend, ParameterStore& store, const AdamWSettings& settings)
      : AdamW(backend, store, settings, whole_segments(store)) {}
  ~AdamW();
  AdamW(const AdamW&) = delete;
  AdamW& operator=(const AdamW&) = delete;

  // Stored gradients are gradient_scale⁻¹ times too large (1 / loss scale).
  void prepare(double learning_rate, double gradient_scale = 1);
  TensorView control() const { return control_; }  // f64 [StepControl::size]
  void apply();
  double squared_norm();  // of the gradient as stored; waits for the device
  // Returns whether the weights were changed, i.e. whether the norm is finite.
  bool finish(double squared_norm);

  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }  // a checkpoint was read
  void reset_masters();  // after values were read without them

  struct State {
    TensorView m, v, master;  // flat; master is empty where values are wide
    std::int64_t first = 0;   // of the parameter's local slice, which element theirs is
  };
  State state_of(const Parameter& parameter) const;  // of no element where the parameter is not in this rank's share
  std::int64_t state_bytes() const { return bytes_; }

 private:
  struct Part {
    Share share;
    State state;
  };
  TensorView take(std::int64_t elements, DType type);

  Backend& backend_;
  ParameterStore& store_;
  AdamWSettings settings_;
  std::vector<Part> parts_;
  TensorView control_;
  std::vector<void*> blocks_;
  std::int64_t updates_ = 0, bytes_ = 0;
};

}  // namespace smlp
