#include "worker/side_by_side.h"

#include <array>

namespace smlp {

namespace {
constexpr double interval_seconds = 1;
}

bool SideBySide::others_work(bool i_do) {
  std::array<double, 1> at_work = {i_do ? 1.0 : 0.0};
  world_.all_reduce_host(at_work, Reduce::sum);
  since_ = {};
  return at_work[0] > 0;
}

void SideBySide::between() {
  mark_();
  if (since_.seconds() >= interval_seconds) others_work(true);
}

void SideBySide::finish() {
  while (others_work(false)) {
  }
}

}  // namespace smlp
