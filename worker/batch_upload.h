// Tokens and targets on their way to where a step is computed. A device fetches what lies in memory of allocate_host() on
// its own time, while the host goes on: each micro-batch of a step has a place there, which is written again in the next
// step, when the device has come to the end of this one. Owned by the Engine.
#pragma once

#include <cstdint>

#include "tensor/backend.h"

namespace smlp {

class BatchUpload {
 public:
  // `rows`: tokens of a micro-batch.
  BatchUpload(Backend& backend, std::int64_t micro_batches, std::int64_t rows);
  ~BatchUpload();
  BatchUpload(const BatchUpload&) = delete;
  BatchUpload& operator=(const BatchUpload&) = delete;

  // Both are free again on return. Between two calls for the same micro-batch the backend was waited for.
  void start(std::int64_t micro_batch, const std::int32_t* tokens, const std::int32_t* targets, TensorView to_tokens,
             TensorView to_targets);

 private:
  Backend& backend_;
  std::int64_t rows_;
  std::int32_t* staged_ = nullptr;  // [micro-batch][tokens, targets][rows]; null: uploads take them from where they are
};

}  // namespace smlp
