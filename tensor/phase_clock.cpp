#include "tensor/phase_clock.h"

#include <utility>

namespace smlp {

void HostClock::changed(Phase from, Phase) {
  const auto now = clock::now();
  seconds_.add(from, std::chrono::duration<double>(now - since_).count());
  since_ = now;
}

PhaseSeconds HostClock::take() {
  changed(phase(), phase());
  return std::exchange(seconds_, {});
}

}  // namespace smlp
