// Lines of a growing file, written by a thread of its own, in their order: a shared disk that is slow, or away for a while,
// holds up no step. Owned by who adds them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace smlp {

class LineWriter {
 public:
  static constexpr std::size_t most_waiting = 10'000;

  explicit LineWriter(std::function<void(const std::string& line)> write);  // called on the thread; must not throw
  ~LineWriter();  // when all that wait are written

  void add(std::string line);  // the oldest that waits is lost where there are too many

 private:
  void work(const std::stop_token& stop);

  std::function<void(const std::string&)> write_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<std::string> waiting_;
  std::jthread thread_;
};

}  // namespace smlp
