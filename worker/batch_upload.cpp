#include "worker/batch_upload.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>

namespace smlp {

BatchUpload::BatchUpload(Backend& backend, std::int64_t micro_batches, std::int64_t rows) : backend_(backend), rows_(rows) {
  if (backend.in_host_memory()) return;
  try {
    staged_ = static_cast<std::int32_t*>(backend.allocate_host(micro_batches * 2 * rows * size_of(DType::i32)));
  } catch (const std::exception& error) {
    spdlog::warn("the loop of training waits for the tokens of each micro-batch to be on the GPU: {}", error.what());
  }
}

BatchUpload::~BatchUpload() {
  if (staged_ != nullptr) backend_.release_host(staged_);
}

void BatchUpload::start(std::int64_t micro_batch, const std::int32_t* tokens, const std::int32_t* targets,
                        TensorView to_tokens, TensorView to_targets) {
  if (staged_ != nullptr) {
    std::int32_t* place = staged_ + micro_batch * 2 * rows_;
    std::copy_n(tokens, rows_, place);
    std::copy_n(targets, rows_, place + rows_);
    tokens = place;
    targets = place + rows_;
  }
  backend_.upload(tokens, to_tokens);
  backend_.upload(targets, to_targets);
}

}  // namespace smlp
