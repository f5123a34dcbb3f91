// Whether the disk owes a thread an answer, as another thread sees it: one that waits for a disk that never answers can tell
// nobody. Each operation of checkpoint/disk.h that begins says that the disk has answered to the one before.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

namespace smlp {

struct DiskWait {
  std::int64_t step = 0;  // of the save that is at work there
  double seconds = 0;     // since the disk answered last
};

class DiskWatch {
 public:
  // As long as it lives its thread, which has no other, is at work for the save of `step`.
  class Work {
   public:
    Work(DiskWatch& watch, std::int64_t step);
    ~Work();
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
  };

  std::optional<DiskWait> wait() const;  // from any thread; nullopt: nobody is at work

 private:
  friend void disk_answered() noexcept;
  static constexpr double nobody = -1;
  std::atomic<double> answered_ = nobody;
  std::atomic<std::int64_t> step_ = 0;
};

// By the thread itself, where it asks the disk by other means.
void disk_answered() noexcept;

}  // namespace smlp
