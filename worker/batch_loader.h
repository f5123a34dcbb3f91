// Reads the next micro-batch on a thread of its own while the current one is being computed on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "data/token_stream.h"

namespace smlp {

struct HostBatch {
  std::int64_t position = -1, count = 0;  // sequences [position, position + count) of the run
  std::vector<std::int32_t> tokens, targets;
};

class BatchLoader {
 public:
  BatchLoader(const TokenStream& stream, std::int64_t context);
  ~BatchLoader();

  // The batch asked for; `next_position` is then read ahead. The reference is valid until the next call.
  const HostBatch& take(std::int64_t position, std::int64_t count, std::int64_t next_position);

 private:
  void read_ahead(std::stop_token stop);
  void fill(HostBatch& batch) const;

  const TokenStream& stream_;
  std::int64_t context_;
  HostBatch current_;  // loop thread

  std::mutex mutex_;  // guards what follows
  std::condition_variable_any changed_;
  HostBatch ahead_;
  bool wanted_ = false;
  std::exception_ptr failure_;

  std::jthread thread_;
};

}  // namespace smlp
