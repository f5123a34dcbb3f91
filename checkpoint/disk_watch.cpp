#include "checkpoint/disk_watch.h"

#include "core/clock.h"

namespace smlp {

namespace {
thread_local DiskWatch* mine = nullptr;
}

DiskWatch::Work::Work(DiskWatch& watch, std::int64_t step) {
  watch.step_ = step;
  mine = &watch;
  disk_answered();
}

DiskWatch::Work::~Work() {
  mine->answered_ = nobody;
  mine = nullptr;
}

std::optional<DiskWait> DiskWatch::wait() const {
  const double answered = answered_;
  if (answered == nobody) return std::nullopt;
  return DiskWait{step_, monotonic_seconds() - answered};
}

void disk_answered() noexcept {
  if (mine != nullptr) mine->answered_ = monotonic_seconds();
}

}  // namespace smlp
