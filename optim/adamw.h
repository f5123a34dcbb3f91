// AdamW over the segments of a ParameterStore, with the state it owns: moving averages m and v, and where
// values are 16-bit an f32 master of each. One step of the loop:
//   adamw.prepare(rate, gradient_scale);                      // the step's scalars go to the device
//   sync.squared_norm(adamw.control());                       // and the norm, computed there
//   adamw.apply();                                            // leaves all alone when the norm is not finite
//   adamw.finish(adamw.squared_norm());                       // counts the update, if it was one
#pragma once

#include <cstdint>
#include <vector>

#include "params/parameter_store.h"

namespace smlp {

class AdamW {
 public:
  // Over a sealed store, which outlives it. Masters start as the values are: see reset_masters().
  AdamW(Backend& backend, ParameterStore& store, const AdamWSettings& settings);
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
  // After values were read without their masters; the reverse is values_from_masters().
  void reset_masters();
  void values_from_masters();

  struct State {
    TensorView m, v, master;  // shaped as the parameter's local slice; master is empty where values are wide
  };
  State state_of(const Parameter& parameter) const;
  std::int64_t state_bytes() const { return bytes_; }

 private:
  TensorView take(std::int64_t elements, DType type);

  Backend& backend_;
  ParameterStore& store_;
  AdamWSettings settings_;
  std::vector<State> states_;  // flat, one a segment
  TensorView control_;
  std::vector<void*> blocks_;
  std::int64_t updates_ = 0, bytes_ = 0;
};

}  // namespace smlp
