#include "worker/line_writer.h"

#include <utility>

namespace smlp {

LineWriter::LineWriter(std::function<void(const std::string& line)> write)
    : write_(std::move(write)), thread_([this](const std::stop_token& stop) { work(stop); }) {}

LineWriter::~LineWriter() {
  thread_.request_stop();
  thread_.join();
}

void LineWriter::add(std::string line) {
  {
    const std::scoped_lock lock(mutex_);
    if (waiting_.size() == most_waiting) waiting_.pop_front();
    waiting_.push_back(std::move(line));
  }
  wake_.notify_one();
}

void LineWriter::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (wake_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
    const std::string line = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    write_(line);
    lock.lock();
  }
}

}  // namespace smlp
