// Work done by several threads and taken back in the order it was given: prepare() encodes with it, the
// trainer counts words with it. Results wait until their turn; give() blocks nothing, the owner bounds what
// is under way by size().
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

namespace smlp {

template <class Result>
class OrderedWork {
 public:
  explicit OrderedWork(std::int64_t threads) {
    for (std::int64_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this](std::stop_token stop) { work(stop); });
    }
  }

  void give(std::function<Result()> task) {
    std::packaged_task<Result()> packed(std::move(task));
    results_.push_back(packed.get_future());
    {
      const std::lock_guard guard(mutex_);
      tasks_.push_back(std::move(packed));
    }
    changed_.notify_one();
  }
  Result take() {  // the oldest; rethrows what its task threw
    auto result = std::move(results_.front());
    results_.pop_front();
    return result.get();
  }
  std::size_t size() const { return results_.size(); }

 private:
  void work(std::stop_token stop) {
    for (;;) {
      std::packaged_task<Result()> task;
      {
        std::unique_lock lock(mutex_);
        if (!changed_.wait(lock, stop, [&] { return !tasks_.empty(); })) return;
        if (stop.stop_requested()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  std::deque<std::future<Result>> results_;  // owner's thread

  std::mutex mutex_;  // guards tasks_
  std::condition_variable_any changed_;
  std::deque<std::packaged_task<Result()>> tasks_;

  std::vector<std::jthread> threads_;  // last: joined before what they use goes
};

}  // namespace smlp
