#include "worker/batch_loader.h"

#include <utility>

namespace smlp {

BatchLoader::BatchLoader(const TokenStream& stream, std::int64_t context)
    : stream_(stream), context_(context), thread_([this](std::stop_token stop) { read_ahead(stop); }) {}

BatchLoader::~BatchLoader() {
  thread_.request_stop();
  thread_.join();
}

void BatchLoader::fill(HostBatch& batch) const {
  const auto size = static_cast<std::size_t>(batch.count * context_);
  batch.tokens.resize(size);
  batch.targets.resize(size);
  stream_.read(batch.position, batch.count, batch.tokens, batch.targets);
}

const HostBatch& BatchLoader::take(std::int64_t position, std::int64_t count, std::int64_t next_position) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !wanted_; });
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  std::swap(current_, ahead_);
  if (current_.position != position || current_.count != count) {
    current_.position = position;
    current_.count = count;
    fill(current_);
  }
  ahead_.position = next_position;
  ahead_.count = count;
  wanted_ = true;
  changed_.notify_all();
  return current_;
}

void BatchLoader::read_ahead(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return wanted_; })) {
    lock.unlock();
    std::exception_ptr failure;
    try {
      fill(ahead_);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    failure_ = failure;
    wanted_ = false;
    changed_.notify_all();
  }
}

}  // namespace smlp
