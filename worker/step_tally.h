// What a step adds up where it is computed, and the host asks for once, when the step is over: the loss, what routers add to
// it, and how they shared out the tokens. Owned by the Engine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "layers/layer.h"

namespace smlp {

class StepTally {
 public:
  struct Sizes {
    std::int64_t micro_batches = 1, groups = 0;  // groups: routing groups of a micro-batch
    std::int64_t blocks = 0, experts = 0;        // none: a model without experts
  };
  StepTally(Backend& backend, const Sizes& sizes);
  ~StepTally();
  StepTally(const StepTally&) = delete;
  StepTally& operator=(const StepTally&) = delete;

  void clear();  // before the first micro-batch
  TensorView loss() const;                               // f64 [1]
  TensorView auxiliary(std::int64_t micro_batch) const;  // f64 [groups, 2], of Context
  RoutingCounts counts(std::int64_t micro_batch) const;  // of Context

  void read();  // Waits.
  // What read() found in one of the views above, or a part of it; good until the next read().
  template <class T>
  std::span<const T> found(const TensorView& view) const {
    const auto offset = static_cast<const char*>(view.data) - static_cast<const char*>(all_.data);
    return {reinterpret_cast<const T*>(reinterpret_cast<const char*>(host_.data()) + offset),
            static_cast<std::size_t>(view.size())};
  }

 private:
  TensorView part(std::int64_t first, Shape shape, DType type) const;  // from the `first` f64 of all

  Backend& backend_;
  Sizes sizes_;
  std::int64_t of_micro_batch_;  // f64 of each
  TensorView all_;               // f64
  std::vector<double> host_;
};

}  // namespace smlp
